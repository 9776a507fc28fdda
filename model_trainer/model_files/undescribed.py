"""Loads model files without a description of the preprocessing: the user specifies the network and the classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
from absl import logging

from model_trainer.errors import ConfigError, ModelFileError, StorageError
from model_trainer.model_files.arrays import assign_arrays, find_arrays
from model_trainer.model_files.container import ModelFile
from model_trainer.model_files.outline import Outline, make_layer, read_outline
from model_trainer.model_files.untrusted import TRUST, building, refuse_dangerous, refuse_unfitting, without_values
from model_trainer.model_files.variant import variant_of_file
from model_trainer.network.build import build_network, flat_backbone
from model_trainer.network.final_activation import find_final_activation
from model_trainer.network.own_model import stage_own_model
from model_trainer.network.portable import make_portable
from model_trainer.network.stages import TwoStageNetwork
from model_trainer.run.network import Network
from model_trainer.specs import ModelSpec
from model_trainer.specs.table import entry_of_class, table_name, without_own_rescaling
from model_trainer.storage import files
from model_trainer.tasks.classification import Classification
from model_trainer.tasks.multi_label import MultiLabel
from model_trainer.tasks.task import Task

__all__ = ["how_to_describe", "load_undescribed", "load_with_keras"]


def how_to_describe(file: ModelFile) -> str:
    """The sentence that tells the user which options to pass for the file, with what its Keras config reveals."""
    outline = read_outline(file.config) if file.config is not None else None
    name, count, facts = "NAME", "", []
    if outline is not None and outline.table_name is not None:
        name = outline.table_name
        facts.append(
            f"its backbone {outline.backbone!r} looks like {name}" if outline.backbone else f"it looks like {name}"
        )
    if outline is not None and outline.num_outputs is not None:
        count = f"{outline.num_outputs} "
        facts.append(f"it has {outline.num_outputs} outputs")
    sentence = " and ".join(facts)
    return (
        f"{sentence[:1].upper()}{sentence[1:]}{'. ' if sentence else ''}Specify its network and classes: --spec {name} "
        f"--classes NAMES, the {count}names in the order of its outputs, separated by commas, or a text file with one "
        f'on each line (in Python: spec="{name}", classes=[...]).'
    )


def load_undescribed(
    file: ModelFile, spec: ModelSpec | str, classes: Sequence[str], trust: bool
) -> tuple[TwoStageNetwork, ModelSpec, Task]:
    """Loads a file that has no description.

    Args:
        file: the open file.
        spec: the spec of the backbone; its name, so that the input size is taken from the file; or the path of a
            `model_spec.json`.
        classes: names of the outputs in their order.
        trust: whether Keras may load the network, which runs the code that the file names.

    Returns:
        The network, the spec with its preprocessing, and the task that decodes its outputs.

    Raises:
        ModelFileError: the file contains another network or number of classes, or one that only Keras can load.
        ConfigError: there is no such spec.
    """
    outline = read_outline(file.config) if file.config is not None else None
    spec = _spec(spec, outline, trust)
    if outline is not None and outline.num_outputs not in (None, len(classes)):
        raise ModelFileError(f"{file.path} {_wrong_count(outline, classes)}")
    similar = outline.table_name if outline is not None else None
    entry = entry_of_class(spec.class_)
    if trust and similar is not None and entry is not None and entry[0] != similar:
        logging.warning(
            "%s looks like %s, but its images are preprocessed like those of %s.", file.path, similar, entry[0]
        )
    try:
        if not trust:
            refuse_dangerous(spec, Network(), Classification())
        if trust and file.config is not None:
            model = load_with_keras(file.path)
            task = _task_of(model, len(classes))
            network = stage_own_model(model, None, spec, task, len(classes), trains=False)
        elif outline is not None:
            network, task = _from_outline(file, outline, spec, len(classes))
        elif file.config is None:
            network, task = _from_weights(file, spec, len(classes))
        else:
            raise ModelFileError(
                "its network is not a backbone followed by a chain of common head layers, so only Keras can load it. "
                f"{TRUST}"
            )
    except (ConfigError, ModelFileError) as error:
        message = str(error)
        raise ModelFileError(message if message.startswith(str(file.path)) else f"{file.path}: {message}") from error
    if spec.preprocess_func != "none" and _starts_with_rescaling(network.model):
        logging.info("%s rescales images itself, so they are passed unscaled, 0 to 255.", file.path)
        spec = spec.changed("preprocess_func", "none")
    return network, spec, task


def load_with_keras(path: Path) -> keras.Model:
    """Loads a model with Keras, which runs the code that the file names.

    Raises:
        ModelFileError: Keras cannot load it.
    """
    try:
        with files.local_copy(path) as local:
            return keras.saving.load_model(local, compile=False, safe_mode=False)
    except StorageError:
        raise
    except (ValueError, TypeError, OSError, ImportError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelFileError(f"{path}: Keras cannot load its model: {reason}.") from error


def _spec(spec: ModelSpec | str, outline: Outline | None, trust: bool) -> ModelSpec:
    if isinstance(spec, ModelSpec):
        return spec
    if spec.endswith(".json"):
        return ModelSpec.load(spec, trust=trust)
    settings: dict[str, Any] = {}
    try:
        if outline is not None and outline.size is not None:
            settings["target_size"] = outline.size
        if outline is not None and outline.width is not None and outline.table_name == table_name(spec):
            settings["kwargs"] = {"alpha": outline.width}
        preprocessing = without_own_rescaling(table_name(spec))
        # In a flat model the origin of the scaling layers is unknown, so they are always taken from the file.
        is_without = outline is not None and (not outline.backbone or not outline.scales_inside)
        if preprocessing is not None and is_without:
            settings["kwargs"] = {"include_preprocessing": False}
            settings["preprocess_func"], settings["preprocess_args"] = preprocessing
        return ModelSpec.named(spec, **settings)
    except ConfigError as error:
        raise ModelFileError(f"--spec: {str(error).replace('`name` ', '')}") from error


def _wrong_count(outline: Outline, classes: Sequence[str]) -> str:
    if outline.num_outputs == 1:
        return f"has one output, for yes or no: name only the class that yes stands for: --classes {classes[-1]}"
    names = "one class is named" if len(classes) == 1 else f"{len(classes)} classes are named"
    hint = f" If {classes[0]!r} should be a file, it does not exist." if len(classes) == 1 else ""
    return f"has {outline.num_outputs} outputs, but {names}; each output needs a name, in their order.{hint}"


def _from_outline(file: ModelFile, outline: Outline, spec: ModelSpec, num_classes: int) -> tuple[TwoStageNetwork, Task]:
    variant = variant_of_file(spec, file)

    def build(shapes_only: bool) -> keras.Model:
        tensor = images = keras.Input(spec.target_size)
        flat = flat_backbone(spec, None, variant, shapes_only)
        backbone = keras.Model(flat.images, flat.features, name=flat.name)
        # In a flat model the scaling layers may belong to the backbone.
        if outline.backbone or not _starts_with_rescaling(backbone):
            for layer in outline.scaling:
                tensor = make_layer(layer)(tensor)
        tensor = backbone(tensor)
        for layer in outline.head:
            tensor = make_layer(layer)(tensor)
        return keras.Model(images, tensor, name=backbone.name)

    def compare() -> None:
        with building(file):
            model = build(shapes_only=True)
            network = stage_own_model(model, None, spec, Classification(), num_classes, trains=False, shapes_only=True)
        find_arrays(file, network.model, exact=True)

    without_values(compare)
    with building(file):
        model = build(shapes_only=False)
        task = _task_of(model, num_classes)
        network = stage_own_model(model, None, spec, task, num_classes, trains=False)
    assign_arrays(file, find_arrays(file, network.model, exact=True))
    return network, task


def _from_weights(file: ModelFile, spec: ModelSpec, num_classes: int) -> tuple[TwoStageNetwork, Task]:
    """Loads a file with weights only, of a network that ends in pooling and one `Dense` layer."""
    task: Task = MultiLabel(thresholds=0.5) if num_classes == 1 else Classification()
    network, variant = Network(dropout_rate=0.0), variant_of_file(spec, file)
    refuse_unfitting(file, spec, network, task, num_classes, variant)
    built = build_network(spec, network, task, num_classes, variant=variant)
    assign_arrays(file, find_arrays(file, built.model, exact=True))
    return built, task


def _task_of(model: keras.Model, num_classes: int) -> Task:
    """`MultiLabel` if the network ends in a sigmoid or has a single output, otherwise `Classification`."""
    outputs = make_portable(model).outputs
    if len(outputs) != 1:
        raise ModelFileError(f"it has {len(outputs)} outputs of {num_classes} values; expected one")
    try:
        activation = find_final_activation(outputs[0], "network").activation
    except ConfigError:  # an unusual activation; its outputs are used as they are
        activation = None
    return MultiLabel(thresholds=0.5) if num_classes == 1 or activation == "sigmoid" else Classification()


def _starts_with_rescaling(model: keras.Model) -> bool:
    """Whether the images are rescaled or normalized before the first layer with weights."""
    for layer in model.layers:
        if isinstance(layer, (keras.layers.Rescaling, keras.layers.Normalization)):
            return True
        if layer.weights:
            return False
    return False
