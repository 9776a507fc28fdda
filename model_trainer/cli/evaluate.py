"""`model-trainer evaluate`."""

from __future__ import annotations

import typer

__all__ = ["evaluate"]


def evaluate(
    output_dir: str = typer.Argument(help="An output folder, or an .hdf5 in one."),
    data: str | None = typer.Option(
        None,
        "--data",
        metavar="PATH",
        help="Class folders, a manifest, .rec or .tfrecord; default: the run's own validation data.",
    ),
    trust: bool = typer.Option(False, "--trust", help="Let the file name code outside keras.applications."),
) -> None:
    """Figures of a trained model on labelled images: accuracy, recall, of tags average precision, and of each class."""
    from rich.console import Console

    from model_trainer.api import evaluate as evaluate_model
    from model_trainer.cli.tables import print_evaluation

    print_evaluation(evaluate_model(output_dir, data, trust), Console())
