"""Assigns the columns of a manifest their meaning, by their usual names or as the user specifies."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from model_trainer.errors import DataError
from model_trainer.messages import nearest
from model_trainer.sources.image_folder import IMAGE_SUFFIXES

__all__ = ["ROLES", "Columns", "LabelRole", "check_distinct", "find_columns"]

LabelRole = Literal["probabilities", "labels", "label", "ids"]
_LABEL_ROLES: tuple[LabelRole, ...] = ("probabilities", "labels", "label", "ids")  # in order of precedence

# The usual names, in order of precedence; case, "_", "-", "." and spaces are ignored.
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
# The roles for which the user can name a column; one of class indices is named as a label column.
ROLES = tuple(role for role in _USUAL if role != "ids")
_METADATA = "-metadata"  # SageMaker Ground Truth writes "job-metadata" next to the labels in "job"


@dataclass(frozen=True)
class Columns:
    """The names of the columns that are read; None where there is no such column.

    Attributes:
        kind: what `label` holds: "probabilities", several "labels", one "label", or class indices, "ids".
        class_name: for probabilities, the column with each row's class.
        notes: log messages about choices between columns.
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


def find_columns(names: Collection[str], requested: Mapping[str, str | None], *, all_known: bool) -> Columns:
    """Chooses the columns to read among `names`.

    Args:
        requested: column names from the user, by role such as "file"; None searches for the usual names.
        all_known: False while later rows may have more columns; a requested column may then be missing.

    Raises:
        DataError: no column has files or labels, or a requested column does not exist.
    """
    notes: list[str] = []
    name_of = {role: _find(role, names, requested.get(role), all_known, notes) for role in _USUAL}
    kind = _kind(name_of, requested, notes)
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


def _find(role: str, names: Collection[str], requested: str | None, all_known: bool, notes: list[str]) -> str | None:
    if requested is not None:
        if requested in names:
            return requested
        similar = next((name for name in names if _without_autograph(name) == _without_autograph(requested)), None)
        if similar is None and (all_known or role in {"file", *_LABEL_ROLES}):
            raise DataError(
                f"there is no column {requested!r} ({role}_column).{nearest(requested, names)} {_listed(names)}"
            )
        return similar
    candidates = [name for usual in _USUAL[role] for name in names if _without_autograph(name) == usual]
    if len(candidates) > 1:
        unread = " and ".join(map(repr, candidates[1:]))
        option = "label_column" if role == "ids" else f"{role}_column"
        notes.append(
            f"the column {candidates[0]!r} is read, not {unread}; set {option}={candidates[1]!r} to read the other"
        )
    return candidates[0] if candidates else None


def _kind(name_of: Mapping[str, str | None], requested: Mapping[str, str | None], notes: list[str]) -> LabelRole | None:
    explicit = [kind for kind in _LABEL_ROLES if requested.get(kind) is not None]
    if explicit:
        return explicit[0]
    available = [kind for kind in _LABEL_ROLES if name_of[kind] is not None]
    unread = [name_of[kind] for kind in available[1:] if (available[0], kind) != ("probabilities", "label")]
    if unread:
        notes.append(
            f"labels are read from {name_of[available[0]]!r}, not from {' or '.join(map(repr, unread))}; "
            f"set label_column={unread[0]!r} to read the other"
        )
    return available[0] if available else None


def _is_metadata(name: str, names: Collection[str]) -> bool:
    return name.endswith(_METADATA) and name.removesuffix(_METADATA) in names


def _without_autograph(name: str) -> str:
    return re.sub(r"[\s_.-]+", "", name).lower()


def _no_column(what: str, option: str, usual: Collection[str], names: Collection[str]) -> str:
    if any(name.lower().endswith(IMAGE_SUFFIXES) for name in names):
        return (
            f"the first line should hold the column names, got {', '.join(map(repr, names))}. "
            "Put a line such as filename,label above it."
        )
    return (
        f"no column of {what} was found. {_listed(names)} Usual names are {', '.join(usual)}; otherwise set {option}."
    )


def _listed(names: Collection[str], max_shown: int = 20) -> str:
    shown = ", ".join(repr(name) for name in list(names)[:max_shown])
    return f"The columns are {shown}{'' if len(names) <= max_shown else f' and {len(names) - max_shown} more'}."


def check_distinct(names: Iterable[str], where: str) -> None:
    """Raises DataError if a column name occurs twice; `where` is the file or line that the message starts with."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(f"{where}: the column {name!r} occurs twice. Rename or remove one.")
        seen.add(name)
