"""Bar charts as inline SVG that follows the width of the page and its colours."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from model_trainer.messages import shown

__all__ = ["bar_chart"]

_LABEL_PERCENT = 22  # of the width, for the names of the rows
_BARS_PERCENT = 68
_BAR_PIXELS = 15
_GAP_PIXELS = 7
_MOST_CHARACTERS = 28
_NUM_COLOURS = 4  # of the page's style


def bar_chart(rows: Sequence[str], series: Mapping[str, Sequence[int]], title: str) -> str:
    """Horizontal bars, one of each series in every row, with their numbers.

    Args:
        rows: their names.
        series: by name the number in each row.
        title: what is shown, for screen readers.
    """
    largest = max((number for numbers in series.values() for number in numbers), default=0) or 1
    row_pixels = _BAR_PIXELS * len(series) + _GAP_PIXELS
    parts = []
    for position, row in enumerate(rows):
        top = position * row_pixels
        name = shown(row)
        short = name if len(name) <= _MOST_CHARACTERS else f"{name[: _MOST_CHARACTERS - 1]}…"
        middle = top + _BAR_PIXELS * len(series) / 2
        parts.append(
            f'<text x="{_LABEL_PERCENT - 1}%" y="{middle:g}" class="row">{html.escape(short)}'
            f"<title>{html.escape(name)}</title></text>"
        )
        for place, numbers in enumerate(series.values()):
            number, y = numbers[position], top + place * _BAR_PIXELS
            width = _BARS_PERCENT * number / largest
            parts.append(
                f'<rect x="{_LABEL_PERCENT}%" y="{y}" width="{width:.2f}%" height="{_BAR_PIXELS - 2}" rx="2" '
                f'class="series{place % _NUM_COLOURS}"/>'
                f'<text x="{_LABEL_PERCENT + width:.2f}%" dx="6" y="{y + _BAR_PIXELS / 2 - 1:g}" class="number">'
                f"{number:,}</text>"
            )
    height = row_pixels * len(rows)
    return (
        f'<svg width="100%" height="{height}" role="img" aria-label="{html.escape(title)}">{"".join(parts)}</svg>'
        + (_legend(list(series)) if len(series) > 1 else "")
    )


def _legend(names: Sequence[str]) -> str:
    items = "".join(
        f'<span><i class="swatch series{place % _NUM_COLOURS}"></i>{html.escape(shown(name))}</span>'
        for place, name in enumerate(names)
    )
    return f'<p class="legend">{items}</p>'
