"""Checks that all processes have the same run and the same images."""

from __future__ import annotations

from model_trainer.errors import ConfigError, DataError
from model_trainer.training.prepare import PreparedRun
from model_trainer.training.resume import first_difference

__all__ = ["check_same_data"]


def check_same_data(prepared: PreparedRun) -> None:
    """Raises ConfigError if processes have different runs, DataError if they have different data."""
    run = prepared.run.changed("output_dir", "").to_dict()
    fingerprint = prepared.resolved_settings["data_fingerprint"]
    own = [run, fingerprint, [len(prepared.train), len(prepared.val or ())]]
    for number, other in enumerate(prepared.process_group.all_gather(own)):
        here, there = f"Host {prepared.process_group.index}", f"host {number}"
        field, mine, theirs = first_difference(run, other[0])
        if field:
            raise ConfigError(
                f"is {mine!r} on {here.lower()} and {theirs!r} on {there}; all hosts need the same value.", field
            )
        if own[1:] != other[1:]:
            raise DataError(
                f"{here} has other images than {there}: {own[2][0]:,} to train and {own[2][1]:,} to validate, there "
                f"{other[2][0]:,} and {other[2][1]:,}. All hosts need the same images, under the same paths."
            )
