"""Money: amounts as decimals of a currency to int64 minor units, without a float in between."""

import re
from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

from services.collector.refusal import Refused

LIMIT_MINOR = 2**53
"""Amounts lie below it, in minor units: they survive clients that keep numbers as doubles."""

CODES: Mapping[int, str] = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}
EXPONENTS: Mapping[str, int] = {code: exponent for exponent, codes in CODES.items() for code in codes.split()}
"""Decimals of a currency (ISO 4217), where they are not two."""

CURRENCY = re.compile("[A-Z]{3}")
AMOUNT = re.compile(r"[+-]?\d{1,20}(\.\d{1,40})?", re.ASCII)
EXACT = Context(prec=100, rounding=ROUND_HALF_EVEN)


def currency(value: Any, *, field: str) -> str:
    """The code of a currency in capitals; empty for none.

    Raises:
        Refused: it is not three letters.
    """
    if value is None or value == "":
        return ""
    if not isinstance(value, str) or not CURRENCY.fullmatch(code := value.upper()):
        raise Refused.because(field, "must be an ISO 4217 code, three letters")
    return code


def amount(value: Any, *, field: str) -> Decimal | None:
    """The number in `value`, a JSON number or its text (`19.99`); None where there is none.

    A JSON number is read by its shortest decimal text, so 19.99 is 19.99.

    Raises:
        Refused: it is something else.
    """
    if value is None or value == "":
        return None
    text = value.strip() if isinstance(value, str) else ""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        made = Decimal(str(value))
    elif AMOUNT.fullmatch(text):
        made = Decimal(text)
    else:
        raise Refused.because(field, "must be a number such as 19.99")
    if not made.is_finite() or abs(made) >= LIMIT_MINOR:
        raise Refused.because(field, "must lie between -2^53 and 2^53")
    return made


def minor(value: Decimal, code: str, *, field: str) -> int:
    """`value` in minor units of the currency `code`; what is finer is rounded, a half to the even neighbour.

    Raises:
        Refused: it is out of range.
    """
    units = int(EXACT.quantize(EXACT.scaleb(value, EXPONENTS.get(code, 2)), Decimal(1)))
    if abs(units) >= LIMIT_MINOR:
        raise Refused.because(field, "must lie between -2^53 and 2^53 minor units")
    return units
