"""An extension of griffe: examples are code, and declared values (pydantic's) are documented field by field.

The entries below `Fields:` (or `Args:`, `Attributes:`) in the docstring of a class become the text of each field. One
may name several: `train_data, val_data: where images come from`. `Field(2, ge=1)` becomes the default, 2, and "At
least 1."

griffe reads `Examples:` as doctests, and `Example:`, which our docstrings have, as a note in prose.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

import griffe

SECTION = re.compile(
    r"^(?:Fields|Args|Attributes):\n(?P<entries>(?:[ \t]+.*\n?|\n)+)", re.MULTILINE
)
ENTRY = re.compile(
    r"^(?P<names>\w+(?:, \w+)*):(?P<text>.*(?:\n[ \t]+.*)*)", re.MULTILINE
)
EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)
LIMITS = {
    "ge": "At least",
    "gt": "Above",
    "le": "At most",
    "lt": "Below",
    "min_length": "Length at least",
}


class Fields(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = EXAMPLE.sub("Examples: Example:", obj.docstring.value)

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        if not cls.docstring or {"dataclass", "namedtuple"} & set(cls.labels):
            return
        if (
            "__init__" in cls.members
        ):  # its arguments are documented; that it keeps them is no news
            for name in [
                name
                for name, member in cls.members.items()
                if member.is_attribute and not member.docstring
            ]:
                del cls.members[name]
            return
        texts = _take_texts(cls.docstring)
        for name, member in list(cls.members.items()):
            if member.docstring is None and not _is_field(member):
                del cls.members[name]  # what a base class asks for
            elif isinstance(member, griffe.Attribute):
                limits = _take_default(member)
                text = " ".join([texts.pop(name, ""), *limits]).strip()
                if text and member.docstring is None:
                    member.docstring = griffe.Docstring(
                        text[0].upper() + text[1:], parent=member
                    )
        inherited = "".join(f"\n- `{name}`: {text}" for name, text in texts.items())
        cls.docstring.value += f"\n{inherited}" if inherited else ""


def _is_field(member: Any) -> bool:
    """Whether it is an attribute of each value; a ClassVar, a property and a method are not."""
    return (
        isinstance(member, griffe.Attribute) and "instance-attribute" in member.labels
    )


def _take_texts(docstring: griffe.Docstring) -> dict[str, str]:
    """What the section of fields says of each; it is no longer in the docstring then."""
    section = SECTION.search(docstring.value)
    if section is None:
        return {}
    docstring.value = SECTION.sub("", docstring.value).strip()
    entries = ENTRY.finditer(inspect.cleandoc("\n" + section["entries"]))
    return {
        name: " ".join(entry["text"].split())
        for entry in entries
        for name in entry["names"].split(", ")
    }


def _take_default(field: griffe.Attribute) -> list[str]:
    """Leaves the default alone as the value of a field; the limits as sentences."""
    if (
        not isinstance(field.value, griffe.ExprCall)
        or str(field.value.function) != "Field"
    ):
        return []
    arguments = field.value.arguments
    named = {
        each.name: each.value
        for each in arguments
        if isinstance(each, griffe.ExprKeyword)
    }
    field.value = next(
        (each for each in arguments if not isinstance(each, griffe.ExprKeyword)), None
    )
    return [f"{words} {named[key]}." for key, words in LIMITS.items() if key in named]
