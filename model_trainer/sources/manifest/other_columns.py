"""Reads a column of a manifest that training ignores, such as the camera, to evaluate its values separately."""

from __future__ import annotations

from collections.abc import Iterator

from model_trainer.errors import DataError
from model_trainer.messages import nearest
from model_trainer.sources.examples import Examples
from model_trainer.sources.manifest.columns import ROLES, find_columns
from model_trainer.sources.manifest.layout import layout_of
from model_trainer.sources.manifest.manifest import Manifest
from model_trainer.sources.manifest.rows import read_rows
from model_trainer.sources.manifest.table import Table
from model_trainer.sources.source import Source

__all__ = ["column_values"]

Key = tuple[str, tuple[int, ...]]  # the name of an image, and its crop region

NO_CROP = (0, 0, 0, 0)


def column_values(source: Source, examples: Examples, column: str) -> list[str]:
    """Returns the value of `column` for each example, as text; "" where it is empty or null.

    Args:
        source: what `examples` were read from: a manifest, or a split, filter or concatenation of manifests.
        column: the name of the column.

    Raises:
        DataError: no manifest in `source` has this column.
    """
    manifests = list(_manifests_in(source))
    if not manifests:
        raise DataError(
            f"{examples.origin} is not a manifest, so it has no column {column!r}. Write a CSV with the columns "
            f"filename, label and {column}, and evaluate with --data and its path."
        )
    values: dict[Key, str] = {}
    columns: dict[str, None] = {}
    for manifest in manifests:
        values |= _values_by_image(manifest, column, columns)
    if column not in columns:
        names = ", ".join(map(repr, list(columns)[:20]))
        raise DataError(
            f"{manifests[0].path} has no column {column!r}.{nearest(column, columns)} Its columns are {names}."
        )
    crops = examples.crops
    keys = (
        (name, NO_CROP if crops is None else tuple(int(edge) for edge in crops[index]))
        for index, name in enumerate(examples.names())
    )
    return [values.get(key, "") for key in keys]


def _manifests_in(source: Source) -> Iterator[Manifest]:
    if isinstance(source, Manifest):
        yield source
        return
    for field in type(source).model_fields:
        value = getattr(source, field)
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, Source):
                yield from _manifests_in(each)


def _values_by_image(manifest: Manifest, column: str, names: dict[str, None]) -> dict[Key, str]:
    """The value of each image, by name and crop region; adds the names of all columns to `names`."""
    layout = layout_of(manifest.path, manifest.format)
    rows = read_rows(manifest.path, layout)
    requested = {role: getattr(manifest, f"{role}_column") for role in ROLES}
    table, values = Table(manifest.base_folder), list[str]()
    names_so_far: dict[str, None] = {}
    columns = None
    for position, row in rows.rows:
        if columns is None or not row.keys() <= names_so_far.keys():
            names_so_far.update(dict.fromkeys(row))
            columns = find_columns(names_so_far, requested, all_known=rows.uniform)
        try:
            table.add(row, columns)
        except DataError as error:
            raise DataError(f"{manifest.path} {rows.unit} {position}: {error}") from None
        value = row.get(column)
        values.append("" if value is None else str(value))
    names.update(names_so_far)
    paths, crops = table.packed_paths(), table.crop_column()
    return {
        (paths[row], NO_CROP if crops is None else tuple(int(edge) for edge in crops[row])): value
        for row, value in enumerate(values)
    }
