"""`model-trainer doctor`."""

from __future__ import annotations

import typer

from model_trainer.cli.foreign_options import ClassesOfData, Root, read_classes

__all__ = ["doctor"]


def doctor(
    path_or_run: str = typer.Argument(
        help="A folder of class folders, or of such folders called train and val; a folder of images; a manifest, "
        ".rec or .tfrecord; or a RUN: a .py, a training_options.json, an output folder.",
    ),
    root: Root = None,
    classes: ClassesOfData = None,
    output: str = typer.Option(".", "--output", metavar="DIR", help="Where doctor.html and doctor.json go."),
    quarantine: str | None = typer.Option(
        None, "--quarantine", metavar="DIR", help="Move unreadable files there, and judge what remains."
    ),
    fix: str | None = typer.Option(
        None, "--fix", metavar="DIR", help="Write a mended copy there: names, turns, colours, first frames."
    ),
    max_pixels: int | None = typer.Option(
        None, "--max-pixels", min=1, help="Images of more are not decoded; default: what training takes."
    ),
    min_size: int = typer.Option(32, "--min-size", min=1, help="Pixels; an image with a shorter side is tiny."),
    trust: bool = typer.Option(False, "--trust", help="Let a .json name code outside keras.applications."),
) -> None:
    """What is wrong with a data set: every file is read once. Exit 1 when there are faults."""
    from model_trainer.cli.overrides import load_run
    from model_trainer.diagnosis.data import run_doctor, run_file_of
    from model_trainer.report.doctor import doctor_page

    run_file = run_file_of(path_or_run)
    raise typer.Exit(
        run_doctor(
            path_or_run,
            load_run(run_file, trust) if run_file else None,
            page_of=doctor_page,
            root=root,
            classes=read_classes(classes),
            output=output,
            quarantine=quarantine,
            fix=fix,
            max_pixels=max_pixels,
            min_size=min_size,
        )
    )
