"""`model-trainer predict`."""

from __future__ import annotations

import json

import typer

from model_trainer.cli.engines import Engine, EngineName
from model_trainer.cli.foreign_options import Classes, Spec, Trust, read_classes
from model_trainer.cli.prediction_options import Calibrated, Top
from model_trainer.cli.starting import announce_tensorflow
from model_trainer.stderr_filter import filter_stderr_until_exit

__all__ = ["predict"]


def predict(
    model: str = typer.Argument(
        help="An output folder, an .hdf5 in one, or any Keras model file with --spec and --classes."
    ),
    images: list[str] = typer.Argument(help="Image files, and folders, which are searched recursively."),
    as_json: bool = typer.Option(False, "--json", help="Print a JSON list and nothing else."),
    top: Top = None,
    calibrated: Calibrated = False,
    engine: Engine = EngineName.auto,
    spec: Spec = None,
    classes: Classes = None,
    trust: Trust = False,
) -> None:
    """Predict the labels of images, with their probabilities."""
    announce_tensorflow()
    filter_stderr_until_exit()
    from rich.console import Console

    from model_trainer.cli.tables import print_predictions
    from model_trainer.serving.predictor import predict_files

    progress = Console(stderr=True)
    results = predict_files(
        model,
        images,
        top=top,
        trust=trust,
        spec=spec,
        classes=read_classes(classes),
        calibrated=calibrated,
        engine=engine.value,
        console=progress,
    )
    if as_json:
        typer.echo(json.dumps(results, indent=1, ensure_ascii=False))
    else:
        print_predictions(results, Console(), progress)
    if any("error" in result for result in results):
        raise typer.Exit(2)
