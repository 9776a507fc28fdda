"""The command line of `script/TrainModel.py`: `main(run, sample=...)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from model_trainer.cli.errors import STOPPED_EARLY, exit_code_of
from model_trainer.cli.help import Command
from model_trainer.cli.overrides import with_overrides
from model_trainer.cli.starting import check_weights
from model_trainer.cli.store_options import with_store_options
from model_trainer.cli.train_options import (
    Folds,
    HostIndex,
    HostList,
    NoReport,
    Overrides,
    Restarts,
    Resume,
    ResumeFrom,
    supervised,
)
from model_trainer.cli.training import check_folds, train_declared
from model_trainer.errors import ConfigError, DataError
from model_trainer.storage import files

if TYPE_CHECKING:
    from model_trainer.run.run import Run
    from model_trainer.sources.source import Source

__all__ = ["main"]


def main(run: Run, sample: Run | None = None) -> None:
    """Trains `run`, or `sample` with `--sample`, and exits with the exit code of the command line."""

    def command(
        use_sample: bool = typer.Option(False, "--sample", help="Train on the built-in sample, photos of clothes."),
        overrides: Overrides = None,
        folds: Folds = None,
        resume: Resume = False,
        resume_from: ResumeFrom = None,
        hosts: HostList = None,
        host_index: HostIndex = None,
        restarts: Restarts = 0,
        no_report: NoReport = False,
    ) -> None:
        """Train the run that this file declares, and write models, logs and metrics to output/."""
        check_folds(folds, hosts, host_index)
        supervised(restarts)
        chosen = run
        if use_sample:
            if sample is None:
                raise ConfigError("--sample needs a sample run, which this file does not declare.")
            from model_trainer.sources.sample import unpack_sample

            unpack_sample()
            chosen = sample
        chosen = with_overrides(chosen, overrides or [])
        if not resume and resume_from is None:  # the checkpoint has the weights
            check_weights(chosen)

        try:
            is_stopped = train_declared(
                chosen,
                folds=folds,
                resume=resume,
                resume_from=resume_from,
                hosts=hosts,
                host_index=host_index,
                report=not no_report,
            )
        except DataError as error:
            if use_sample or sample is None or _has_folders(chosen.train_data):
                raise
            raise DataError(f"{error}\nTo try it without images of your own: script/train --sample") from error
        if is_stopped:
            raise typer.Exit(STOPPED_EARLY)

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(cls=Command)(with_store_options(command))
    raise SystemExit(exit_code_of(lambda: app(standalone_mode=True)))


def _has_folders(source: Source) -> bool:
    folder = getattr(source, "path", ".")
    return files.is_local_folder(folder) and any(files.is_folder(entry.path) for entry in files.scan(folder))
