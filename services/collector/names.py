"""Names of events and fields, written in any way: `Product Viewed`, `product_viewed` and `productViewed` are one."""

import re
import unicodedata
from functools import lru_cache

CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
ASCII_SEPARATORS = re.compile("[^a-z0-9]+")
SEPARATORS = re.compile(r"[\W_]+")


def folded(text: str) -> str:
    """`text` by its lower-case letters and digits alone."""
    if text.isascii():
        return text.lower() if text.isalnum() else ASCII_SEPARATORS.sub("", text.lower())
    return SEPARATORS.sub("", unicodedata.normalize("NFKC", text).casefold())


@lru_cache(maxsize=4_096)
def normal(name: str) -> str:
    """`name`, one of few, folded."""
    return folded(name)


def snake(name: str) -> str:
    """`name` in lower case, its words joined by underscores."""
    return SEPARATORS.sub("_", CAMEL.sub("_", unicodedata.normalize("NFKC", name))).strip("_").lower()
