"""Where a network's first weights come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from absl import logging

from model_trainer.errors import ConfigError
from model_trainer.models.arrays import assign_arrays, find_arrays
from model_trainer.models.build import Built, build_network
from model_trainer.models.container import open_model_file
from model_trainer.models.network import AnyNetwork, Network
from model_trainer.specs import ModelSpec, preprocessing_mismatch
from model_trainer.tasks.task import Task

__all__ = ["Started", "start_network"]


@dataclass(frozen=True)
class Started:
    """A network with its first weights.

    Attributes:
        built: the plain float32 network.
        weights: what was really used: "imagenet", "random", or the file's path.
    """

    built: Built
    weights: str


def start_network(spec: ModelSpec, network: AnyNetwork, task: Task, num_classes: int, weights: str | None) -> Started:
    """Builds the network and gives it its first weights.

    Args:
        weights: "imagenet"; None for random ones; a `.hdf5`, `.h5`, `.keras` or `.weights.h5` file; or "auto":
            ImageNet's if they can be had, otherwise random ones with one loud line. Of a file only arrays are read,
            also of a stranger's; the network is the declared one.

    Raises:
        ConfigError: ImageNet's weights cannot be had.
        ModelFileError: the file does not fit, is damaged, or holds what no Keras writes.
    """
    if weights is None:
        return Started(build_network(spec, network, task, num_classes), "random")
    if weights == "auto":
        return _auto(spec, network, task, num_classes)
    if weights == "imagenet":
        _check_has_imagenet(spec, network)
        _tell_mismatch(spec)
        return Started(_with_imagenet(spec, network, task, num_classes), "imagenet")
    built = build_network(spec, network, task, num_classes)
    with open_model_file(weights) as file:
        taken = assign_arrays(file, find_arrays(file, built.model, new=built.head))
    weighted = [layer.name for layer in built.model.layers if layer.weights]
    fresh = [name for name in weighted if name not in taken]
    logging.info("Weights of %d layers come from %s: %s.", len(taken), weights, ", ".join(taken))
    if fresh:
        logging.warning("The head is new, with random weights: %s.", ", ".join(fresh))
    return Started(built, str(Path(weights)))


def _auto(spec: ModelSpec, network: AnyNetwork, task: Task, num_classes: int) -> Started:
    reason = _why_no_imagenet(spec, network)
    if reason is None:
        try:
            started = Started(_with_imagenet(spec, network, task, num_classes), "imagenet")
            _tell_mismatch(spec)
            return started
        except ConfigError as error:
            if error.field != "weights":
                raise
            reason = "ImageNet's could not be downloaded"
    logging.warning("WEIGHTS ARE RANDOM: %s. Training from scratch takes more images and epochs.", reason)
    return Started(build_network(spec, network, task, num_classes), "random")


def _with_imagenet(spec: ModelSpec, network: AnyNetwork, task: Task, num_classes: int) -> Built:
    # Built once without weights first, so that a wrong size or option is told of as such, not as a failed download.
    build_network(spec, network, task, num_classes)
    try:
        return build_network(spec, network, task, num_classes, weights="imagenet")
    except ConfigError:
        raise
    except Exception as error:  # Keras raises a bare Exception when a download fails
        raise ConfigError(
            f'is "imagenet", but {spec.class_}\'s weights could not be downloaded ({str(error).splitlines()[0]}). '
            "Give a file, or None to start from scratch.",
            "weights",
        ) from error


def _check_has_imagenet(spec: ModelSpec, network: AnyNetwork) -> None:
    reason = _why_no_imagenet(spec, network)
    if reason is not None:
        raise ConfigError(f'is "imagenet", but {reason}. Give a file, or None to start from scratch.', "weights")


def _why_no_imagenet(spec: ModelSpec, network: AnyNetwork) -> str | None:
    if not isinstance(network, Network):
        return "the network is your own model"
    if spec.class_ is None or not spec.class_.startswith("keras.applications."):
        return f"{spec.class_} is not one of keras.applications"
    if spec.target_size[2] != 3:
        return f"ImageNet's weights are for 3 channels, not {spec.target_size[2]}"
    return None


def _tell_mismatch(spec: ModelSpec) -> None:
    line = preprocessing_mismatch(spec)
    if line:
        logging.warning("%s", line)
