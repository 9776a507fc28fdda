"""The initial weights of a network: random, ImageNet's, or from a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from absl import logging

from model_trainer.errors import ConfigError, ModelTrainerError
from model_trainer.model_files.arrays import assign_arrays, find_arrays
from model_trainer.model_files.container import open_model_file
from model_trainer.model_files.variant import variant_of_file
from model_trainer.network.build import build_network
from model_trainer.network.stages import TwoStageNetwork
from model_trainer.run.network import AnyNetwork, Network, OwnModel
from model_trainer.specs import ModelSpec, preprocessing_mismatch
from model_trainer.storage import files
from model_trainer.tasks.task import Task

__all__ = ["InitializedNetwork", "Origin", "initialize_network"]

MAX_NAMES = 3  # of layers, in a message
_RANDOM = "WEIGHTS ARE RANDOM: {}. Training from scratch takes more images and epochs."


@dataclass(frozen=True)
class Origin:
    """What a run recorded about its network when it started.

    Attributes:
        weights: the weights actually used: "imagenet", "random", the path of a file, or "own" for those of the user's
            own model.
        variant: of the graph, see `variants.py`.
        precision: in which the network computes.
    """

    weights: str
    variant: str | None
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] | None = None


@dataclass(frozen=True)
class InitializedNetwork:
    """A network with its initial weights.

    Attributes:
        network: float32, the one that is saved.
        weights: as in `Origin`.
        warning: the warning that was logged if "auto" fell back to random weights; otherwise empty.
    """

    network: TwoStageNetwork
    weights: str
    warning: str = ""


def initialize_network(
    spec: ModelSpec,
    network: AnyNetwork,
    task: Task,
    num_classes: int,
    weights: str | None,
    origin: Origin | None = None,
) -> InitializedNetwork:
    """Builds the network and initializes its weights.

    Args:
        spec, network, task, num_classes: see `build_network`.
        weights: "imagenet"; None for random weights, or for those that the user's own model has; a `.hdf5`, `.h5`,
            `.keras` or `.weights.h5` file, in which the backbone may be a nested model; or "auto": ImageNet's weights
            if they are available, otherwise like None with a warning. Only arrays are read from a file, so it need not
            be trusted; the network is the declared one.
        origin: of the run that is resumed: the same network is built without loading weights, because the checkpoint
            contains them.

    Raises:
        ConfigError: ImageNet's weights are not available.
        ModelFileError: the file does not fit the network, is damaged, or contains something that Keras does not write.
    """
    if origin is not None:
        built = build_network(spec, network, task, num_classes, variant=origin.variant)
        is_fallback = weights == "auto" and origin.weights == "random"
        reason = "ImageNet's were not available when the run began"
        return InitializedNetwork(built, origin.weights, _RANDOM.format(reason) if is_fallback else "")
    if isinstance(network, OwnModel) and weights in (None, "auto"):
        return InitializedNetwork(build_network(spec, network, task, num_classes), "own")
    if weights is None:
        return InitializedNetwork(build_network(spec, network, task, num_classes), "random")
    if weights == "auto":
        return _auto(spec, network, task, num_classes)
    if weights == "imagenet":
        _check_has_imagenet(spec, network)
        _warn_of_mismatch(spec)
        try:
            return InitializedNetwork(_with_imagenet(spec, network, task, num_classes), "imagenet")
        except ConfigError as error:
            if error.field == "weights":  # a wrong size or option is reported as such, not as a failed download
                build_network(spec, network, task, num_classes)
            raise
    return InitializedNetwork(_from_file(weights, spec, network, task, num_classes), str(files.as_path(weights)))


def _from_file(path: str, spec: ModelSpec, declared: AnyNetwork, task: Task, num_classes: int) -> TwoStageNetwork:
    with open_model_file(path) as file:
        network = build_network(spec, declared, task, num_classes, variant=variant_of_file(spec, file))
        fit = find_arrays(file, network.model, new=network.head_layers, paths=network.paths)
        loaded = assign_arrays(file, fit)
    random = [layer.name for layer in network.model.layers if layer.weights and layer.name not in loaded]
    logging.info(
        "Loaded the weights of %d layers from %s%s.%s%s",
        len(loaded), path, f", from the model {fit.container!r} in it" if fit.container else "",
        f" Not loaded: {_summary(fit.left_over)}." if fit.left_over else "",
        f" Randomly initialized: {_summary(random)}." if random else "",
    )  # fmt: skip
    logging.debug(
        "Loaded: %s. Not loaded: %s. Randomly initialized: %s.",
        *(", ".join(names) or "none" for names in (loaded, fit.left_over, random)),
    )
    return network


def _summary(names: list[str]) -> str:
    """The names of a few layers, or their number: "dense" or "5 layers (conv1, conv2, conv3, ...)"."""
    shown = ", ".join(name[:60] for name in names[:MAX_NAMES])
    return shown if len(names) <= MAX_NAMES else f"{len(names)} layers ({shown}, ...)"


def _auto(spec: ModelSpec, network: AnyNetwork, task: Task, num_classes: int) -> InitializedNetwork:
    reason = _why_no_imagenet(spec, network)
    if reason is None:
        try:
            initialized = InitializedNetwork(_with_imagenet(spec, network, task, num_classes), "imagenet")
            _warn_of_mismatch(spec)
            return initialized
        except ConfigError as error:
            if error.field != "weights":
                raise
            reason = "ImageNet's could not be downloaded"
    warning = _RANDOM.format(reason)
    logging.warning("%s", warning)
    return InitializedNetwork(build_network(spec, network, task, num_classes), "random", warning)


def _with_imagenet(spec: ModelSpec, network: AnyNetwork, task: Task, num_classes: int) -> TwoStageNetwork:
    try:
        return build_network(spec, network, task, num_classes, weights="imagenet")
    except ModelTrainerError:
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


def _warn_of_mismatch(spec: ModelSpec) -> None:
    line = preprocessing_mismatch(spec)
    if line:
        logging.warning("%s", line)
