"""The bodies of HTTP requests: read within limits, and parsed as JSON."""

import json
import re
import zlib
from collections.abc import AsyncIterator
from typing import Any, ClassVar, NoReturn

import orjson

from segue.errors import InvalidInput
from services.collector.door import BODY_MAX_BYTES

GZIP_WINDOW = 31
LONE_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class BodyTooLarge(InvalidInput):
    """A body beyond the limit, before or after it was unpacked."""

    reason: ClassVar[str] = "BODY_TOO_LARGE"


async def read(chunks: AsyncIterator[bytes], *, length: str | None, encoding: str | None) -> bytes:
    """A whole body, unpacked.

    Args:
        chunks: the body as it arrives.
        length: the header content-length.
        encoding: the header content-encoding.

    Raises:
        BodyTooLarge: it has more than 512 KiB; what is beyond is neither kept nor unpacked.
        InvalidInput: it cannot be unpacked.
    """
    if length is not None and length.isdecimal() and (len(length) > 10 or int(length) > BODY_MAX_BYTES):
        _too_large()
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > BODY_MAX_BYTES:
            _too_large()
    match (encoding or "identity").strip().lower():
        case "identity":
            return bytes(body)
        case "gzip" | "x-gzip":
            return _unpacked(bytes(body))
    raise InvalidInput.because("content-encoding", "must be gzip or identity")


def parse(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`; of two fields with one name the last, half a surrogate pair as a question mark.

    Raises:
        InvalidInput: it is none, holds NaN, Infinity or a number no double can hold, or is nested over 1,000 deep.
    """
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        # Texts cut in the middle of a character are common in browsers, and no reason to lose a batch.
        if not LONE_SURROGATE.search(body):
            raise InvalidInput.because("body", f"is not JSON: {_where(error)}") from None
        parsed = _mended(body)
    if not isinstance(parsed, dict):
        raise InvalidInput.because("body", "must be a JSON object")
    return parsed


def _mended(body: bytes) -> Any:
    try:
        loose = json.loads(body, parse_constant=_constant)
        return orjson.loads(json.dumps(loose, ensure_ascii=False, allow_nan=False).encode(errors="replace"))
    except (ValueError, RecursionError):
        raise InvalidInput.because("body", "is not JSON") from None


def _unpacked(body: bytes) -> bytes:
    try:
        unpacker = zlib.decompressobj(GZIP_WINDOW)
        unpacked = unpacker.decompress(body, BODY_MAX_BYTES + 1)
    except zlib.error:
        raise InvalidInput.because("body", "is not gzip") from None
    if len(unpacked) > BODY_MAX_BYTES:
        _too_large()
    if not unpacker.eof or unpacker.unused_data:
        raise InvalidInput.because("body", "is not one whole gzip member")
    return unpacked


def _constant(_: str) -> NoReturn:
    raise ValueError


def _too_large() -> NoReturn:
    raise BodyTooLarge.because("body", f"has more than {BODY_MAX_BYTES:,} bytes")


def _where(error: orjson.JSONDecodeError) -> str:
    return f"line {error.lineno}, column {error.colno}"
