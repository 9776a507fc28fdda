"""The run that `--resume` continues, and the options that may change when it does."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from absl import logging

from model_trainer.cluster.supervisor import STARTED
from model_trainer.config import with_present_names
from model_trainer.errors import ConfigError, DataError, StorageError
from model_trainer.model_files.description import read_description_file
from model_trainer.model_files.weights import Origin
from model_trainer.network.variants import IMAGENET, has_variants
from model_trainer.run.optimizers import LAMB
from model_trainer.run.run import Run
from model_trainer.run.settings import default_settings, flatten
from model_trainer.specs import ModelSpec
from model_trainer.storage import files
from model_trainer.training.checkpoints.store import Checkpoint, checkpoints_in, newest_complete

__all__ = [
    "check_changes",
    "check_data",
    "check_not_continued",
    "find_folder",
    "first_difference",
    "for_batch_size",
    "is_finished",
    "older_choices",
    "read_origin",
    "steps_done",
]

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
# The options that may change: duration, output, devices, and tolerances.
SAFE_OPTIONS = (
    "name", "output_dir", "training.epochs", "training.batch_size", "training.accumulation_steps",
    "training.max_bad_images", "training.max_bad_fraction", "training.divergence", "hardware", "observers",
    "callbacks.N.patience", "callbacks.N.tracking_uri", "callbacks.N.mode",
)  # fmt: skip
SAFE = re.compile("|".join(re.escape(option).replace("N", r"\d+") + r"(\..*)?" for option in SAFE_OPTIONS))


def find_folder(run: Run, resume_from: str | PurePath | None = None) -> PurePath | None:
    """Returns the folder to resume: `resume_from`, or the newest one with the run's name; None if there is none.

    Raises:
        DataError: `resume_from` is not the output folder of a run.
    """
    if resume_from is not None:
        folder = files.as_path(resume_from)
        if not files.is_file(folder / "training_options.json"):
            raise DataError(f"{folder} has no training_options.json; is it the output folder of a run?")
        return folder
    # Exactly this name: "cats" does not resume "cats-large-20261121-120000".
    pattern = re.compile(re.escape(run.name) + r"-(\d{8}-\d{6})(?:-(\d+))?")
    candidates = []
    parent = files.as_path(run.output_dir)
    for name in files.names_in(parent):
        match, path = pattern.fullmatch(name), parent / name
        # A restarted process resumes a run that was started under its supervisor, not an older one.
        if match and match[1] >= os.environ.get(STARTED, "") and files.is_file(path / "training_options.json"):
            candidates.append(((match[1], int(match[2] or 1)), path))
    return max(candidates)[1] if candidates else None


def check_changes(run: Run, folder: PurePath) -> None:
    """Raises ConfigError if `run` differs from the run in `folder` in an option that must not change."""
    older, recorded = older_choices(run, folder), dict(flatten(_read_options(folder)["run"]))
    new_options = {**dict(flatten(run.to_dict())), **older}
    if older:
        former_defaults = " and ".join(f"{field}={value}" for field, value in older.items())
        logging.info("The run continues with %s, the default of the version that started it.", former_defaults)
    optimizer = run.training.optimizer
    if isinstance(optimizer, LAMB) and optimizer.weight_decay and "training.optimizer.weight_decay_on" not in recorded:
        logging.warning(
            "An older version started this run, whose LAMB scaled the weight decay with the update. From now on it is "
            "decoupled, as in keras.optimizers.Lamb, so the run does not continue exactly as before."
        )
    # An option that did not exist when the run started counts as its default; another class shows in its "type".
    defaults = {field: default for field, default in default_settings(run) if field in new_options}
    old_options = {**defaults, **_former_defaults(run, new_options), **recorded}
    changes = {
        field: (_formatted(old_options.get(field)), _formatted(new_options.get(field)))
        for field in sorted(old_options.keys() | new_options.keys())
        if old_options.get(field) != new_options.get(field)
    }
    for field, (old, new) in changes.items():
        if not SAFE.fullmatch(field):
            raise ConfigError(
                f"was {old} and is {new} now; the run in {folder} was started with the former. To continue it, repeat "
                "the --set options of its first start, or change the option back; for a new run leave out --resume. "
                f"Only these may change in a resumed run: {', '.join(SAFE_OPTIONS)}.",
                field,
            )
    for field, values in changes.items():
        logging.info("%s was %s and is %s from now on.", field, *values)


def first_difference(run: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, Any, Any]:
    """Returns the first field, by name, in which two runs as JSON differ, and both values; an empty name if none."""
    values, other_values = dict(flatten(run)), dict(flatten(other))
    for field in sorted(values.keys() | other_values.keys()):
        if values.get(field) != other_values.get(field):
            return field, values.get(field), other_values.get(field)
    return "", None, None


def check_data(resolved_settings: Mapping[str, Any], folder: PurePath) -> None:
    """Raises DataError if the data is not that of the run in `folder`.

    Args:
        resolved_settings: of the prepared run; see `Prepared.resolved_settings`.
    """
    recorded = _read_options(folder).get("data_fingerprint", {})
    for split, name in (("train", "training"), ("val", "validation")):
        if recorded.get(split) != resolved_settings["data_fingerprint"][split]:
            raise DataError(
                f"The {name} data differs from that with which {folder} was started: paths, sizes or labels differ. "
                "Restore it, or start a new run without --resume."
            )


def check_not_continued(folder: PurePath, checkpoint: Checkpoint | None) -> None:
    """Raises StorageError if another process has continued the run in `folder` since `checkpoint` was read.

    Called after this process has locked the folder: until then the other one may still have been writing to it.
    """
    names = [path.name for path in checkpoints_in(folder / "checkpoints")]
    own_name = "" if checkpoint is None else checkpoint.name
    if names and names[-1] > own_name:
        newest = newest_complete(folder / "checkpoints")  # those after `checkpoint` may be damaged
        if newest is not None and newest.name > own_name:
            raise StorageError(
                f"Another process has continued {folder} since its checkpoint was read. Repeat the command with "
                "--resume, which continues from the new one."
            )


def read_origin(folder: PurePath, spec: ModelSpec) -> Origin:
    """Returns the origin of the network that the run in `folder` recorded when it started."""
    weights = str(_read_options(folder).get("weights_used", "random"))
    description = read_description_file(folder / "model_spec.json")
    # Older versions did not record the variant; Keras built it only together with ImageNet's weights.
    variant = IMAGENET if weights == IMAGENET and has_variants(spec) else None
    precision = _read_options(folder).get("precision_used")
    return Origin(weights, description.get("variant", variant), precision if precision in PRECISIONS else None)


def older_choices(run: Run, folder: PurePath) -> dict[str, Any]:
    """Returns the options with which an older version started the run in `folder`, though it did not record them.

    A resumed run keeps them. A field that is now declared with another value than its default is a change, and is not
    among them.
    """
    recorded, new_options = dict(flatten(_read_options(folder)["run"])), dict(flatten(run.to_dict()))
    defaults = dict(default_settings(run))
    return {
        field: former
        for field, former in _former_defaults(run, new_options).items()
        if new_options[field] == defaults.get(field) and recorded.get(field, former) == former
    }


def _former_defaults(run: Run, fields: Iterable[str]) -> dict[str, Any]:
    """Returns, for each of `fields` that older versions did not have, the value that describes what they did."""
    exempt_vectors = isinstance(run.training.optimizer, LAMB)
    former = {
        "network.batch_norm_momentum": "keras",
        "training.optimizer.weight_decay_on": "kernels" if exempt_vectors else "all",
        "training.loss_mean": "weights",
    }
    return {field: value for field, value in former.items() if field in fields}


def is_finished(checkpoint: Checkpoint, run: Run) -> bool:
    """Whether training is complete, also for the number of epochs that `run` declares now."""
    stopped_early = bool(checkpoint.state["stop_training"])
    return bool(checkpoint.state["finished"]) and (stopped_early or checkpoint.epoch >= run.training.epochs)


def steps_done(checkpoint: Checkpoint) -> int:
    """Returns the number of steps of the run before the checkpoint, in batches of its own size."""
    return int(checkpoint.epoch * checkpoint.state["steps_per_epoch"] + checkpoint.position)


def for_batch_size(checkpoint: Checkpoint, run: Run, num_train_images: int) -> Checkpoint:
    """Returns the checkpoint with its position in steps of the batch size that `run` declares now.

    If the images of the current epoch so far are not a whole number of new batches, the epoch is restarted.
    """
    old_size, new_size = int(checkpoint.state["batch_size"]), run.training.batch_size
    if old_size == new_size:
        return checkpoint
    # Step numbers in old batches are no longer valid.
    health = {**checkpoint.state["health"], "last_good": None, "bad_steps": []}
    checkpoint = replace(checkpoint, state={**checkpoint.state, "skipped": [], "health": health})
    if checkpoint.position == 0:
        return checkpoint
    num_seen = min(checkpoint.position * old_size, num_train_images)
    if num_seen % new_size == 0 or num_seen == num_train_images:
        return replace(checkpoint, position=-(-num_seen // new_size))
    logging.warning(
        "Epoch %d is restarted: the %d images it has seen are not a whole number of batches of %d.",
        checkpoint.epoch + 1, num_seen, new_size,
    )  # fmt: skip
    arrays = {name: array for name, array in checkpoint.arrays.items() if not name.startswith("totals/")}
    return replace(checkpoint, position=0, arrays=arrays)


def _read_options(folder: PurePath) -> dict[str, Any]:
    path = folder / "training_options.json"
    try:
        options = json.loads(files.read_text(path))
    except StorageError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}. Start a new run without --resume.") from error
    if not isinstance(options, dict) or not isinstance(options.get("run"), dict):
        raise DataError(f"{path} does not describe a run. Start a new run without --resume.")
    return {**options, "run": with_present_names(options["run"])}


def _formatted(value: Any) -> str:
    return "nothing" if value is None else repr(value)
