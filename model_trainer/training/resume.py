"""Which run `--resume` goes on with, and what may be different when it does."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from absl import logging

from model_trainer.cluster.supervisor import STARTED
from model_trainer.config import Config, to_plain
from model_trainer.errors import ConfigError, DataError
from model_trainer.model_files.description import read_description_file
from model_trainer.model_files.weights import Origin
from model_trainer.network.variants import IMAGENET, has_variants
from model_trainer.run.optimizers import LAMB
from model_trainer.run.run import Run
from model_trainer.specs import ModelSpec
from model_trainer.storage import files
from model_trainer.training.checkpoints.store import Checkpoint

__all__ = [
    "check_changes",
    "check_data",
    "find_folder",
    "first_difference",
    "for_batch_size",
    "is_finished",
    "older_choices",
    "read_origin",
    "steps_done",
]

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
# What may change: how long, where to, on what, and how much is borne.
SAFE = re.compile(
    r"name|output_dir|training\.(epochs|batch_size|accumulation_steps|max_bad_images|max_bad_share|divergence\..*)"
    r"|hardware\..*|callbacks\.\d+\.patience|observers.*"
)


def find_folder(run: Run, resume_from: str | PurePath | None = None) -> PurePath | None:
    """The folder to go on in: the one that is named, otherwise the newest of the run's name; None where there is none.

    Raises:
        DataError: the folder that is named is no output folder of a run.
    """
    if resume_from is not None:
        folder = files.as_path(resume_from)
        if not files.is_file(folder / "training_options.json"):
            raise DataError(f"{folder} has no training_options.json; is it the output folder of a run?")
        return folder
    # Exactly this name: "cats" does not go on with "cats-large-20261121-120000".
    wanted = re.compile(re.escape(run.name) + r"-(\d{8}-\d{6})(?:-(\d+))?")
    found = []
    parent = files.as_path(run.output_dir)
    for name in files.names_in(parent):
        match, path = wanted.fullmatch(name), parent / name
        # A restart goes on with what began under its supervisor, not with an older run.
        if match and match[1] >= os.environ.get(STARTED, "") and files.is_file(path / "training_options.json"):
            found.append(((match[1], int(match[2] or 1)), path))
    return max(found)[1] if found else None


def check_changes(run: Run, folder: PurePath) -> None:
    """Raises ConfigError where `run` differs from the one in `folder` in more than what is safe to change."""
    older, noted = older_choices(run, folder), dict(_flat(_read_options(folder)["run"]))
    now = {**dict(_flat(run.to_dict())), **older}
    if older:
        kept = " and ".join(f"{field}={value}" for field, value in older.items())
        logging.info("The run goes on as it began, with %s, which is not the default by now.", kept)
    optimizer = run.training.optimizer
    if isinstance(optimizer, LAMB) and optimizer.weight_decay and "training.optimizer.weight_decay_on" not in noted:
        logging.warning(
            "An older version began this run, whose LAMB had the weight decay inside the direction. From here on it is "
            "decoupled, as in keras.optimizers.Lamb, so the run does not go on exactly as it began."
        )
    # An option that there was not when the run began counts as its default; a kind that is another shows by its type.
    defaults = {field: default for field, default in _defaults(run) if field in now}
    before = {**defaults, **_before_choices(run, now), **noted}
    changes = {
        field: (_shown(before.get(field)), _shown(now.get(field)))
        for field in sorted(before.keys() | now.keys())
        if before.get(field) != now.get(field)
    }
    for field, (old, new) in changes.items():
        if not SAFE.fullmatch(field):
            raise ConfigError(
                f"was {old} and is {new} now. A run goes on as it began, but for epochs, batch size, "
                f"patience, devices and where its output goes. Change it back, or start anew without --resume.",
                field,
            )
    for field, values in changes.items():
        logging.info("%s was %s and is %s from here on.", field, *values)


def first_difference(run: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, Any, Any]:
    """The first field, by name, in which two runs as JSON differ, with both values; an empty name where none does."""
    ours, theirs = dict(_flat(run)), dict(_flat(other))
    for field in sorted(ours.keys() | theirs.keys()):
        if ours.get(field) != theirs.get(field):
            return field, ours.get(field), theirs.get(field)
    return "", None, None


def check_data(found: Mapping[str, Any], folder: PurePath) -> None:
    """Raises DataError where the data is not what the run in `folder` began with.

    Args:
        found: what the prepared run found; see `Prepared.found`.
    """
    before = _read_options(folder).get("data_fingerprint", {})
    for part, name in (("train", "training"), ("val", "validation")):
        if before.get(part) != found["data_fingerprint"][part]:
            raise DataError(
                f"The {name} data is not what {folder} began with: paths, sizes or labels differ. Put it back, or "
                "start anew without --resume."
            )


def read_origin(folder: PurePath, spec: ModelSpec) -> Origin:
    """What the run in `folder` noted about its network when it began."""
    weights = str(_read_options(folder).get("weights_used", "random"))
    description = read_description_file(folder / "model_spec.json")
    # Before the variant was noted, Keras built it with ImageNet's weights and nothing else.
    variant = IMAGENET if weights == IMAGENET and has_variants(spec) else None
    precision = _read_options(folder).get("precision_used")
    return Origin(weights, description.get("variant", variant), precision if precision in PRECISIONS else None)


def older_choices(run: Run, folder: PurePath) -> dict[str, Any]:
    """What an older version did in fields that it did not know, where the run in `folder` began with one.

    A run goes on as it began. A field that is declared otherwise than by its default is a change, and not among them.
    """
    before, now = dict(_flat(_read_options(folder)["run"])), dict(_flat(run.to_dict()))
    defaults = dict(_defaults(run))
    older = _before_choices(run, now)
    return {
        field: then
        for field, then in older.items()
        if now[field] == defaults.get(field) and before.get(field, then) == then
    }


def _before_choices(run: Run, fields: Iterable[str]) -> dict[str, Any]:
    """By field, of those in `fields`, what was done before there was a choice."""
    exempt_vectors = isinstance(run.training.optimizer, LAMB)
    then = {
        "network.batch_norm_momentum": "keras",
        "training.optimizer.weight_decay_on": "kernels" if exempt_vectors else "all",
        "training.loss_mean": "weights",
    }
    return {field: value for field, value in then.items() if field in fields}


def is_finished(checkpoint: Checkpoint, run: Run) -> bool:
    """Whether nothing is left to do, also with the epochs that `run` declares now."""
    stopped_early = bool(checkpoint.state["stop_training"])
    return bool(checkpoint.state["finished"]) and (stopped_early or checkpoint.epoch >= run.training.epochs)


def steps_done(checkpoint: Checkpoint) -> int:
    """Steps of the whole run before the checkpoint, in batches of its own size."""
    return int(checkpoint.epoch * checkpoint.state["steps_per_epoch"] + checkpoint.position)


def for_batch_size(checkpoint: Checkpoint, run: Run, num_train_images: int) -> Checkpoint:
    """The same checkpoint counted in steps of the batch size that `run` declares now.

    Where the images that the running epoch has seen are no whole number of new steps, the epoch begins anew.
    """
    before, now = int(checkpoint.state["batch_size"]), run.training.batch_size
    if before == now:
        return checkpoint
    # What was counted in other steps is forgotten.
    health = {**checkpoint.state["health"], "last_good": None, "bad_steps": []}
    checkpoint = replace(checkpoint, state={**checkpoint.state, "skipped": [], "health": health})
    if checkpoint.position == 0:
        return checkpoint
    seen = min(checkpoint.position * before, num_train_images)
    if seen % now == 0 or seen == num_train_images:
        return replace(checkpoint, position=-(-seen // now))
    logging.warning(
        "Epoch %d begins anew: the %d images it has seen are no whole number of batches of %d.",
        checkpoint.epoch + 1, seen, now,
    )  # fmt: skip
    kept = {name: array for name, array in checkpoint.arrays.items() if not name.startswith("totals/")}
    return replace(checkpoint, position=0, arrays=kept)


def _read_options(folder: PurePath) -> dict[str, Any]:
    path = folder / "training_options.json"
    try:
        options = json.loads(files.read_text(path))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}. Start anew without --resume.") from error
    if not isinstance(options, dict) or not isinstance(options.get("run"), dict):
        raise DataError(f"{path} describes no run. Start anew without --resume.")
    return options


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every plain value with its dotted name; an empty list or table is a value too."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}".lstrip("."))
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from _flat(item, f"{name}.{index}")
    else:
        yield name, value


def _defaults(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The default of each option in a declared value that has one, as JSON, by its dotted name."""
    if isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from _defaults(item, f"{name}.{index}")
    if not isinstance(value, Config):
        return
    for key, info in type(value).model_fields.items():
        inner, item = f"{name}.{info.alias or key}".lstrip("."), getattr(value, key)
        yield from _defaults(item, inner)
        if not info.is_required() and not isinstance(item, Config):
            yield from _flat(to_plain(info.get_default(call_default_factory=True)), inner)


def _shown(value: Any) -> str:
    return "nothing" if value is None else repr(value)
