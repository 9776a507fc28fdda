"""Names as they can be shown: a file may be called anything."""

from __future__ import annotations

__all__ = ["shown"]


def shown(text: str) -> str:
    """`text` with what is not printable escaped: control characters, which could rule a terminal, and bytes of file
    names that are no UTF-8."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
