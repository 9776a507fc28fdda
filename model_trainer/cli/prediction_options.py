"""The options for the content of predictions, for `predict` and `serve`."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["Calibrated", "Top"]

Top = Annotated[
    int | None,
    typer.Option(
        "--top",
        metavar="N",
        min=1,
        help="Number of labels per image; default: 5, or the tags that reach their thresholds.",
    ),
]
Calibrated = Annotated[
    bool, typer.Option("--calibrated", help="Apply the temperature that `evaluate` fitted on the validation data.")
]
