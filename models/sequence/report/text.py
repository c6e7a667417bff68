"""Text of a page: whatever callers named their items and categories, shown and never interpreted."""

from html import escape

SHOWN_CHARACTERS = 60


def shown(text: str) -> str:
    """`text` as HTML shows it: cut, escaped, without control characters, and unable to turn its neighbours around."""
    cut = text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"
    return f"<bdi>{plain(cut)}</bdi>"


def plain(text: str) -> str:
    """`text` escaped, for titles and attributes; what cannot be printed is marked."""
    return escape("".join(each if each.isprintable() else "\ufffd" for each in text))


def duration(t_ms: int) -> str:
    """A length of time in its largest unit, e.g. `3 h`."""
    for unit, ms in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000)):
        if t_ms >= ms:
            return f"{t_ms // ms:,} {unit}"
    return f"{t_ms // 1000} s"
