"""`model-trainer evaluate`."""

from __future__ import annotations

from enum import StrEnum

import typer

from model_trainer.cli.engines import Engine, EngineName, FasterPrecision
from model_trainer.cli.foreign_options import ClassesOfDataOrModel, Root, Spec, Trust, read_classes
from model_trainer.cli.starting import announce_tensorflow
from model_trainer.stderr_filter import filter_stderr_until_exit

__all__ = ["evaluate"]


class Ensemble(StrEnum):
    """How the predictions of several models become one."""

    mean = "mean"


class Augmentation(StrEnum):
    """Versions of an image whose predictions are averaged."""

    flips = "flips"


def evaluate(
    models: list[str] = typer.Argument(
        metavar="OUTPUT_DIR",
        help="An output folder, an .hdf5 in one, or any Keras model file with --spec and --classes. Several are "
        "compared on the same images, or averaged with --ensemble.",
    ),
    data: str | None = typer.Option(
        None,
        "--data",
        metavar="PATH",
        help="A folder with one folder per class, a manifest, .rec or .tfrecord; default: the run's validation data.",
    ),
    root: Root = None,
    output: str | None = typer.Option(
        None, "--output", metavar="DIR", help="Folder for the results; default: evaluation/ in the output folder."
    ),
    by: list[str] | None = typer.Option(
        None,
        "--by",
        metavar="COLUMN",
        help="Compute the metrics also for each value, or quartile, of this column of the manifest; repeatable.",
    ),
    coarse: str | None = typer.Option(
        None,
        "--coarse",
        metavar="FILE",
        help="Compute the metrics also for superclasses: a CSV or JSON file that maps each class to its superclass.",
    ),
    ensemble: Ensemble | None = typer.Option(None, "--ensemble", help="Evaluate the mean of several models."),
    tta: Augmentation | None = typer.Option(
        None, "--tta", help="Test-time augmentation: average each image and its mirror image."
    ),
    calibrated: bool = typer.Option(False, "--calibrated", help="Apply the temperature fitted on validation data."),
    batch_size: int = typer.Option(32, "--batch-size", metavar="N", min=1, help="Images per batch."),
    engine: Engine = EngineName.auto,
    precision: FasterPrecision | None = typer.Option(
        None,
        "--precision",
        help="Instead of evaluating, compare the model in this dtype with float32, and record in precision.json, next "
        "to the model file, whether `serve --precision` may use it. Exit code 1 if not.",
    ),
    spec: Spec = None,
    classes: ClassesOfDataOrModel = None,
    trust: Trust = False,
) -> None:
    """Compute the metrics of a trained model on labeled images, overall and for each class.

    Metrics have 95 % confidence intervals. `balanced_accuracy` is the mean of the recalls of the classes.
    The metrics, the predictions and the images behind them are written to evaluation/ in the output folder.
    """
    announce_tensorflow()
    filter_stderr_until_exit()
    if precision is not None:
        from model_trainer.cli.evaluate_precision import check_precision

        refused = {
            "--output": output,
            "--by": by,
            "--coarse": coarse,
            "--ensemble": ensemble,
            "--tta": tta,
            "--calibrated": calibrated,
        }
        passed = check_precision(
            models,
            precision.value,
            engine.value,
            data=data,
            root=root,
            batch_size=batch_size,
            spec=spec,
            classes=read_classes(classes),
            trust=trust,
            refused=[option for option, value in refused.items() if value],
        )
        raise typer.Exit(0 if passed else 1)
    from model_trainer.cli.evaluate_models import evaluate_models

    evaluate_models(
        models,
        data=data,
        root=root,
        output=output,
        by=tuple(by or ()),
        coarse=coarse,
        is_ensemble=ensemble is not None,
        tta=None if tta is None else "flips",
        calibrated=calibrated,
        batch_size=batch_size,
        engine=engine.value,
        spec=spec,
        classes=read_classes(classes),
        trust=trust,
    )
