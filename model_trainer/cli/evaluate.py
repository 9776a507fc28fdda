"""`model-trainer evaluate`."""

from __future__ import annotations

import typer

from model_trainer.cli.foreign_options import ClassesOfDataOrModel, Root, Spec, read_classes
from model_trainer.cli.starting import announce_tensorflow
from model_trainer.stderr_filter import filter_stderr_until_exit

__all__ = ["evaluate"]


def evaluate(
    output_dir: str = typer.Argument(
        help="An output folder, an .hdf5 in one, or any Keras model file with --spec and --classes."
    ),
    data: str | None = typer.Option(
        None,
        "--data",
        metavar="PATH",
        help="A folder with one folder per class, a manifest, .rec or .tfrecord; default: the run's validation data.",
    ),
    root: Root = None,
    spec: Spec = None,
    classes: ClassesOfDataOrModel = None,
    trust: bool = typer.Option(False, "--trust", help="Allow the file to run code outside keras.applications."),
) -> None:
    """Compute the metrics of a trained model on labelled images, overall and for each class.

    `sensitivity` is the macro recall: the mean of the recalls of the classes.
    """
    announce_tensorflow()
    filter_stderr_until_exit()
    from rich.console import Console

    from model_trainer.api import evaluate as evaluate_model
    from model_trainer.cli.tables import print_evaluation

    evaluation = evaluate_model(output_dir, data, trust, spec=spec, classes=read_classes(classes), root=root)
    print_evaluation(evaluation, Console())
