"""Replaces operations with equivalent built-in layers of Keras, so that plain Keras can load the `.hdf5`.

MobileNetV3 contains bare additions and multiplications with constants, ConvNeXt and InceptionResNetV2 custom layers;
Keras saves all of them, but refuses to load them. They are replaced with built-in layers that compute the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from model_trainer.network.graph import Graph, Substitute, is_graph, rebuild_graph

__all__ = [
    "clone_layer",
    "is_built_in",
    "is_channel_scale",
    "make_portable",
    "needs_rebuilding",
    "portable",
    "unportable_names",
]


def needs_rebuilding(model: keras.Model) -> bool:
    """Whether the model has nested models, or operations that cannot be loaded from a `.hdf5`."""
    return any(is_graph(operation) or not is_built_in(operation) for operation in model.operations)


def make_portable(model: keras.Model) -> Graph:
    """Makes a flat graph of built-in float32 layers that computes the same as `model`, with weights of its own.

    Operations without a built-in equivalent are kept; `unportable_names` lists them.
    """
    return rebuild_graph(model, portable)


def unportable_names(model: keras.Model) -> list[str]:
    """Operations of a flat model that plain Keras cannot load from a `.hdf5`, such as "log (keras.ops.Log)"."""
    return [
        f"{operation.name} ({_public_path(operation)})" for operation in model.operations if not is_built_in(operation)
    ]


def clone_layer(layer: keras.Layer, name: str, dtype: str, **changes: Any) -> keras.Layer:
    """Makes a new layer with the same settings, without the weights.

    Args:
        layer: the layer to clone.
        name: name of the new layer.
        dtype: dtype policy of the layer, and of layers that it wraps.
        changes: settings to change.
    """
    config = _with_dtype(layer.get_config(), dtype)
    return type(layer).from_config({**config, "name": name, **changes})


def is_channel_scale(layer: keras.Layer) -> bool:
    """Whether the layer replaces a `LayerScale` of ConvNeXt, which has a factor for each channel, and no kernel."""
    return (
        isinstance(layer, keras.layers.DepthwiseConv2D)
        and layer.name.endswith("_layer_scale")
        and tuple(layer.kernel_size) == (1, 1)
        and layer.depth_multiplier == 1
        and not layer.use_bias
    )


def portable(operation: keras.Operation, name: str) -> Substitute:
    """Returns the substitute of an operation: built-in float32 layers that compute the same, or else the operation."""
    if isinstance(operation, keras.Layer):
        make_substitute = _FROM_APPLICATIONS.get(_path(operation))
        if make_substitute is not None:
            return make_substitute(operation, name)
        layer = clone_layer(operation, name, "float32")
        return Substitute((layer,), layer)
    calls = [[*node.arguments.args, *node.arguments.kwargs.values()] for node in operation._inbound_nodes]
    arguments = calls[0]
    if any(_constants(each) != _constants(arguments) for each in calls):  # one layer has one set of constants
        return Substitute((), operation)
    make_layer = _LAYER_OF.get(type(operation).__name__)
    layer = None if make_layer is None else make_layer(operation, arguments, name)
    if layer is None:
        return Substitute((), operation)
    if sum(isinstance(each, keras.KerasTensor) for each in arguments) > 1:
        return Substitute((layer,), lambda *args, **kwargs: layer([*args, *kwargs.values()]))
    is_tensor = [isinstance(each, (keras.KerasTensor, list, tuple)) for each in arguments]
    position = is_tensor.index(True)
    return Substitute((layer,), lambda *args, **kwargs: layer([*args, *kwargs.values()][position]))


def _constants(arguments: list[Any]) -> list[str]:
    """The constant arguments of an operation, in a form that can be compared."""
    return [
        "tensor" if isinstance(each, (keras.KerasTensor, list, tuple)) else repr(np.asarray(each).tolist())
        for each in arguments
    ]


# Custom layers of networks in keras.applications.


def _layer_scale(layer: Any, name: str) -> Substitute:
    # A 1 x 1 depthwise convolution multiplies each channel by a factor, as fast as a multiplication.
    scale = keras.layers.DepthwiseConv2D(
        1, use_bias=False, depthwise_initializer=keras.initializers.Constant(layer.init_values), name=name
    )
    return Substitute((scale,), scale)


def _stochastic_depth(layer: Any, name: str) -> Substitute:
    dropout = keras.layers.Dropout(layer.drop_path_rate, noise_shape=(None, 1, 1, 1), name=name)
    return Substitute((dropout,), dropout)


def _custom_scale(layer: Any, name: str) -> Substitute:
    scale = keras.layers.Rescaling(float(layer.scale), name=f"{name}_scale")
    add = keras.layers.Add(name=name)
    return Substitute((scale, add), lambda inputs: add([inputs[0], scale(inputs[1])]))


_FROM_APPLICATIONS: dict[str, Callable[[Any, str], Substitute]] = {
    "keras.src.applications.convnext.LayerScale": _layer_scale,
    "keras.src.applications.convnext.StochasticDepth": _stochastic_depth,
    "keras.src.applications.inception_resnet_v2.CustomScaleLayer": _custom_scale,
}

# Bare operations, by the name of their class in keras.ops. Each function returns the layer, or None if there is none.


def _arithmetic(operation: Any, arguments: list[Any], name: str) -> keras.Layer | None:
    kind = type(operation).__name__
    tensors = [each for each in arguments if isinstance(each, keras.KerasTensor)]
    if not all(keras.backend.is_float_dtype(each.dtype) for each in tensors):
        return None
    if len(tensors) == 2:
        # If the ranks differ, a merging layer adds axes at another position than NumPy's broadcasting does.
        layer = {"Add": keras.layers.Add, "Subtract": keras.layers.Subtract, "Multiply": keras.layers.Multiply}.get(
            kind
        )
        return None if layer is None or len(tensors[0].shape) != len(tensors[1].shape) else layer(name=name)
    is_first = isinstance(arguments[0], keras.KerasTensor)
    value = _number_or_row(arguments[1] if is_first else arguments[0], tensors[0])
    if value is None or (kind in ("TrueDivide", "Divide") and not is_first):
        return None
    if kind == "Add":
        return keras.layers.Rescaling(1.0, value.tolist(), name=name)
    if kind == "Subtract":
        offset = -value if is_first else value
        return keras.layers.Rescaling(1.0 if is_first else -1.0, offset.tolist(), name=name)
    scale = value if kind == "Multiply" else 1.0 / value
    return keras.layers.Rescaling(scale.tolist(), name=name)


def _number_or_row(value: Any, tensor: keras.KerasTensor) -> np.ndarray | None:
    """A constant as a float64 array `()` or `(channels,)`; None if it has another shape."""
    try:
        array = np.asarray(keras.ops.convert_to_numpy(value), np.float64)
    except (TypeError, ValueError):
        return None
    if array.size == 1:
        return array.reshape(())
    is_row = array.ndim <= len(tensor.shape) and array.shape[-1] == array.size == tensor.shape[-1]
    return array.reshape(-1) if is_row else None


def _activation(operation: Any, arguments: list[Any], name: str) -> keras.Layer | None:
    if getattr(operation, "axis", -1) not in (-1, len(arguments[0].shape) - 1):
        return None
    return keras.layers.Activation(_ACTIVATIONS[type(operation).__name__], name=name)


def _softmax(operation: Any, arguments: list[Any], name: str) -> keras.Layer | None:
    if operation.axis in (-1, len(arguments[0].shape) - 1):
        return keras.layers.Activation("softmax", name=name)
    return keras.layers.Softmax(operation.axis, name=name)


def _pooling(operation: Any, arguments: list[Any], name: str) -> keras.Layer | None:
    axes = operation.axis if isinstance(operation.axis, (list, tuple)) else [operation.axis]
    rank = len(arguments[0].shape)
    if rank != 4 or None in axes or sorted(axis % rank for axis in axes) != [1, 2]:
        return None
    kind = type(operation).__name__
    layer = keras.layers.GlobalAveragePooling2D if kind == "Mean" else keras.layers.GlobalMaxPooling2D
    return layer(keepdims=bool(operation.keepdims), name=name)


def _concatenate(operation: Any, arguments: list[Any], name: str) -> keras.Layer | None:
    return keras.layers.Concatenate(operation.axis, name=name)


def _with_slope(operation: Any, arguments: list[Any], name: str) -> keras.Layer | None:
    if type(operation).__name__ == "Elu":
        return keras.layers.ELU(operation.alpha, name=name)
    return keras.layers.LeakyReLU(operation.negative_slope, name=name)


def _gelu(operation: Any, arguments: list[Any], name: str) -> keras.Layer | None:
    return None if operation.approximate else keras.layers.Activation("gelu", name=name)


def _negative(operation: Any, arguments: list[Any], name: str) -> keras.Layer | None:
    return keras.layers.Rescaling(-1.0, name=name) if keras.backend.is_float_dtype(arguments[0].dtype) else None


def _reshape(operation: Any, arguments: list[Any], name: str) -> keras.Layer | None:
    first, *rest = operation.newshape
    shape = arguments[0].shape[1:]
    if first not in (-1, None) or None in shape or not rest or -1 in rest or np.prod(rest) != np.prod(shape):
        return None
    return keras.layers.Reshape(tuple(rest), name=name)


def _cast(operation: Any, arguments: list[Any], name: str) -> keras.Layer | None:
    if keras.backend.standardize_dtype(operation.dtype) != "float32":
        return None
    if keras.backend.is_float_dtype(arguments[0].dtype):
        return keras.layers.Activation("linear", name=name)
    return keras.layers.Rescaling(1.0, name=name)  # a linear activation would not cast integers


_ACTIVATIONS = {
    "Relu": "relu", "Relu6": "relu6", "Sigmoid": "sigmoid", "Silu": "silu", "HardSigmoid": "hard_sigmoid",
    "HardSilu": "hard_silu", "Softplus": "softplus", "Softsign": "softsign", "Selu": "selu", "Tanh": "tanh",
    "LogSoftmax": "log_softmax", "Exp": "exponential",
}  # fmt: skip

_LAYER_OF: dict[str, Callable[[Any, list[Any], str], keras.Layer | None]] = {
    **dict.fromkeys(("Add", "Subtract", "Multiply", "TrueDivide", "Divide"), _arithmetic),
    **dict.fromkeys(_ACTIVATIONS, _activation),
    "Elu": _with_slope,
    "LeakyRelu": _with_slope,
    "Gelu": _gelu,
    "Negative": _negative,
    "Softmax": _softmax,
    "Mean": _pooling,
    "Max": _pooling,
    "Concatenate": _concatenate,
    "Reshape": _reshape,
    "Cast": _cast,
}


def _with_dtype(value: Any, dtype: str) -> Any:
    """The config with this dtype policy, also in the configs of wrapped layers; integer dtypes are kept."""
    if isinstance(value, dict):
        return {
            key: dtype if key == "dtype" and "int" not in str(each) else _with_dtype(each, dtype)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [_with_dtype(each, dtype) for each in value]
    return value


def is_built_in(operation: keras.Operation) -> bool:
    """Whether it is a layer of keras.layers without user code, so not a `Lambda`."""
    name = type(operation).__name__
    return getattr(keras.layers, name, None) is type(operation) and name != "Lambda"


def _path(operation: keras.Operation) -> str:
    return f"{type(operation).__module__}.{type(operation).__name__}"


def _public_path(operation: keras.Operation) -> str:
    path = _path(operation)
    return f"keras.ops.{type(operation).__name__}" if path.startswith("keras.src.ops.") else path
