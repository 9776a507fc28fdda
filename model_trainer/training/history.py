"""The metrics of each epoch: in memory, in history.csv, and as curves."""

from __future__ import annotations

import csv
import io
import math
from pathlib import PurePath

from model_trainer.display.curves import NOT_METRICS
from model_trainer.storage import files

__all__ = ["Row", "draw_curves", "write_history"]

Row = dict[str, float]  # epoch, loss, accuracy, val_loss, ..., learning_rate, seconds


def write_history(path: PurePath, rows: list[Row]) -> None:
    """Writes a CSV file with one row per epoch; the columns are those of the first row."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else ["epoch"], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: f"{value:.8g}" for name, value in row.items()})
    files.write_text(path, text.getvalue())


def draw_curves(path: PurePath, rows: list[Row], title: str) -> None:
    """Writes an image with the loss and each metric by epoch, training and validation in one plot."""
    from matplotlib.figure import Figure  # not pyplot, which looks for a display
    from matplotlib.ticker import MaxNLocator

    names = list(dict.fromkeys(name.removeprefix("val_") for name in rows[0] if name not in NOT_METRICS))
    figure = Figure(figsize=(5.2 * len(names), 3.8), layout="constrained")
    figure.suptitle(title)
    epochs = [row["epoch"] for row in rows]
    for number, name in enumerate(names, start=1):
        axes = figure.add_subplot(1, len(names), number)
        for column, label, style in ((name, "training", "o--"), (f"val_{name}", "validation", "o-")):
            if column in rows[0]:
                axes.plot(epochs, [row[column] for row in rows], style, label=label, markersize=4)
        axes.set_title(name)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if name != "loss":
            axes.set_ylim(0, 1.02)
        elif any(math.isfinite(row[name]) for row in rows):
            axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend()
    with files.atomic_write(path) as partial:
        figure.savefig(partial, dpi=110)
