"""Which column means what: by the usual names, or as given."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from model_trainer.errors import DataError
from model_trainer.messages import nearest
from model_trainer.sources.image_folder import IMAGE_SUFFIXES

__all__ = ["ROLES", "Columns", "LabelRole", "find_columns"]

LabelRole = Literal["probabilities", "labels", "label", "ids"]
_LABEL_ROLES: tuple[LabelRole, ...] = ("probabilities", "labels", "label", "ids")  # where several are there: the first

# The usual names, the first of several wins; case, "_", "-", "." and spaces do not count.
_USUAL = {
    "file": (
        *("filename", "path", "filepath", "file", "sourceref", "imageref", "image", "imagepath", "imagefile"),
        *("imagename", "imagefilename", "img", "imgpath"),
    ),
    "probabilities": ("classprobabilities", "probabilities"),
    "labels": ("labels", "tags", "classes", "classnames"),
    "label": ("classname", "label", "labelname", "class", "category"),
    "ids": ("classid", "classids", "labelid", "labelids"),
    "unknown": ("unknown", "unknownlabels"),
    "weight": ("weight", "sampleweight", "exampleweight"),
    "crop": ("crop",),
    "split": ("split", "subset", "partition"),
    "group": ("group", "groupid"),
}
# What a column can be given for; class numbers are given as labels.
ROLES = tuple(role for role in _USUAL if role != "ids")
_METADATA = "-metadata"  # SageMaker Ground Truth: beside the labels in "job" the column "job-metadata"


@dataclass(frozen=True)
class Columns:
    """Names of the columns that are read; None where there is none.

    Attributes:
        kind: what `label` holds: "probabilities", "labels" several, "label" one, "ids" one or several class numbers.
        class_name: of probabilities, the column with each row's class.
        notes: lines for the log, about choices between columns.
    """

    file: str
    label: str
    kind: LabelRole
    class_name: str | None
    metadata: str | None
    unknown: str | None
    weight: str | None
    crop: str | None
    split: str | None
    group: str | None
    notes: tuple[str, ...] = field(default=(), compare=False)

    def read(self) -> list[str]:
        """The names of all columns that are read, each once."""
        names = (
            *(self.file, self.label, self.class_name, self.metadata, self.unknown),
            *(self.weight, self.crop, self.split, self.group),
        )
        return list(dict.fromkeys(name for name in names if name is not None))


def find_columns(names: Collection[str], asked: Mapping[str, str | None], *, all_known: bool) -> Columns:
    """The columns among `names`.

    Args:
        asked: by what a column means, such as "file", the name that was given for it; None looks for the usual ones.
        all_known: False while rows to come may have more columns; a given one may then be missing.

    Raises:
        DataError: there is none with files or labels, or none of a given name.
    """
    notes: list[str] = []
    name_of = {role: _find(role, names, asked.get(role), all_known, notes) for role in _USUAL}
    kind = _kind(name_of, asked, notes)
    label = name_of[kind] if kind else None
    if kind is None:
        label = next((name.removesuffix(_METADATA) for name in names if _is_metadata(name, names)), None)
        kind = "label"
    if name_of["file"] is None:
        raise DataError(
            _no_column("files", "file_column='...'", ("filename", "path", "file", "image", "source-ref"), names)
        )
    if label is None or kind is None:
        usual = ("label", "class_name", "labels", "class_probabilities")
        raise DataError(_no_column("labels", "label_column='...' or labels_column='...'", usual, names))
    optional = {role: name_of[role] for role in ("unknown", "weight", "crop", "split", "group")}
    return Columns(
        file=name_of["file"],
        label=label,
        kind=kind,
        class_name=name_of["label"] if kind == "probabilities" else None,
        metadata=f"{label}{_METADATA}" if f"{label}{_METADATA}" in names else None,
        notes=tuple(notes),
        **optional,
    )


def _find(role: str, names: Collection[str], asked: str | None, all_known: bool, notes: list[str]) -> str | None:
    if asked is not None:
        if asked in names:
            return asked
        alike = next((name for name in names if _plain(name) == _plain(asked)), None)
        if alike is None and (all_known or role in {"file", *_LABEL_ROLES}):
            raise DataError(f"there is no column {asked!r} ({role}_column).{nearest(asked, names)} {_listed(names)}")
        return alike
    fitting = [name for usual in _USUAL[role] for name in names if _plain(name) == usual]
    if len(fitting) > 1:
        others = " and ".join(map(repr, fitting[1:]))
        option = "label_column" if role == "ids" else f"{role}_column"
        notes.append(f"the column {fitting[0]!r} is read, not {others}; say {option}={fitting[1]!r} for the other")
    return fitting[0] if fitting else None


def _kind(name_of: Mapping[str, str | None], asked: Mapping[str, str | None], notes: list[str]) -> LabelRole | None:
    given = [kind for kind in _LABEL_ROLES if asked.get(kind) is not None]
    if given:
        return given[0]
    there = [kind for kind in _LABEL_ROLES if name_of[kind] is not None]
    unread = [name_of[kind] for kind in there[1:] if (there[0], kind) != ("probabilities", "label")]
    if unread:
        notes.append(
            f"labels are read from {name_of[there[0]]!r}, not from {' or '.join(map(repr, unread))}; "
            f"say label_column={unread[0]!r} for the other"
        )
    return there[0] if there else None


def _is_metadata(name: str, names: Collection[str]) -> bool:
    return name.endswith(_METADATA) and name.removesuffix(_METADATA) in names


def _plain(name: str) -> str:
    return re.sub(r"[\s_.-]+", "", name).lower()


def _no_column(what: str, option: str, usual: Collection[str], names: Collection[str]) -> str:
    if any(name.lower().endswith(IMAGE_SUFFIXES) for name in names):
        return (
            f"the first line should hold names of columns, got {', '.join(map(repr, names))}. "
            "Put a line such as filename,label above it."
        )
    return f"no column of {what} was found. {_listed(names)} Usual names are {', '.join(usual)}; else say {option}."


def _listed(names: Collection[str], most: int = 20) -> str:
    shown = ", ".join(repr(name) for name in list(names)[:most])
    return f"The columns are {shown}{'' if len(names) <= most else f' and {len(names) - most} more'}."
