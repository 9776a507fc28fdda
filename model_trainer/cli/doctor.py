"""`model-trainer doctor`."""

from __future__ import annotations

import typer

from model_trainer.cli.foreign_options import ClassesOfData, Root, read_classes
from model_trainer.errors import ConfigError
from model_trainer.storage.objects.urls import SCHEMES

__all__ = ["doctor"]


def doctor(
    path_or_run: str = typer.Argument(
        help="A folder with one folder per class, or with train and val folders of these; a folder of images; a "
        "manifest, .rec or .tfrecord; or a run: a .py file, a training_options.json or an output folder. For a URL in "
        "an object store, access rights, encryption and public access are checked, too.",
    ),
    root: Root = None,
    classes: ClassesOfData = None,
    output: str = typer.Option(".", "--output", metavar="DIR", help="Folder for doctor.html and doctor.json."),
    quarantine: str | None = typer.Option(
        None, "--quarantine", metavar="DIR", help="Move unreadable files to this folder, and check the others."
    ),
    images: str | None = typer.Option(
        None,
        "--images",
        metavar="CSV",
        help="With --quarantine: move exactly the images in the column `path` of this table, such as label_issues.csv.",
    ),
    fix: str | None = typer.Option(
        None,
        "--fix",
        metavar="DIR",
        help="Write a fixed copy: correct suffixes, rotate by EXIF, convert to RGB, keep first frames.",
    ),
    max_pixels: int | None = typer.Option(
        None, "--max-pixels", metavar="N", min=1, help="Do not decode larger images; default: the limit of training."
    ),
    min_size: int = typer.Option(
        32, "--min-size", metavar="N", min=1, help="Report images with a side of fewer pixels."
    ),
    write: bool = typer.Option(
        False, "--write", help="Only check whether runs may write and delete at this URL of an object store."
    ),
    trust: bool = typer.Option(
        False, "--trust", help="Run the code that a .json names, also outside keras.applications."
    ),
) -> None:
    """Check a data set for problems. Reads each file once; exits with 1 if any problem is a fault."""
    if path_or_run.partition("://")[0] in SCHEMES:
        from model_trainer.diagnosis.access import diagnose_access
        from model_trainer.storage import cached

        exit_code = diagnose_access(path_or_run, writes=write)
        if write or exit_code:  # images that cannot be read say nothing more
            raise typer.Exit(exit_code)
        cached.forget_listings(path_or_run)  # what is there now; a training that follows uses the same listing
    elif write:
        raise ConfigError("checks a URL in an object store, such as s3://bucket/output.", "--write")
    from model_trainer.cli.overrides import load_run
    from model_trainer.diagnosis.data import run_doctor, run_file_of
    from model_trainer.report.doctor import doctor_page

    run_file = run_file_of(path_or_run)
    raise typer.Exit(
        run_doctor(
            path_or_run,
            load_run(run_file, trust) if run_file else None,
            make_page=doctor_page,
            root=root,
            classes=read_classes(classes),
            output=output,
            quarantine=quarantine,
            images=images,
            fix=fix,
            max_pixels=max_pixels,
            min_size=min_size,
        )
    )
