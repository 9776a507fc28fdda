"""The preprocess functions, from pixels in 0 to 255 to the input that a backbone expects.

Each takes float32 images of any shape that ends in channels, as a NumPy array or a tensor, and returns new ones of the
same type and shape. They use only operators and slices, which both types support, and `tf.reverse` for tensors.
`preprocess` calls one of them, or the user's own function, by name.

Source: the names and formulas of keras-model-specs; "caffe", "tf" and "torch" are the modes of
`keras.applications.imagenet_utils.preprocess_input`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from model_trainer.dotted import import_dotted
from model_trainer.errors import ConfigError
from model_trainer.messages import nearest

__all__ = ["check_preprocessing", "is_dotted", "preprocess", "takes_arguments"]


def none(images: Any) -> Any:
    """Returns the pixels unchanged, 0 to 255, for backbones that start with their own rescaling."""
    return images


def between_plus_minus_1(images: Any) -> Any:
    """`x / 127.5 - 1`, from -1 to 1: Keras' "tf" mode."""
    return images / 127.5 - 1.0


def mean_subtraction(images: Any, *means: float) -> Any:
    """`(x - mean) / 127.5`, from about -1 to 1, with one mean per channel, on the scale 0 to 255."""
    return (images - _per_channel(means)) / 127.5


def mean_subtraction_plus_minus_1(images: Any, *means: float) -> Any:
    """`(x - mean) / 255`, from about -0.5 to 0.5, never outside -1 to 1; means on the scale 0 to 255."""
    return (images - _per_channel(means)) / 255.0


def bgr_mean_subtraction(images: Any, *means: float) -> Any:
    """`x - mean`, then the channels reversed: Keras' "caffe" mode. The means are RGB, on the scale 0 to 255."""
    centered = images - _per_channel(means)
    if isinstance(centered, np.ndarray):
        return centered[..., ::-1]
    import tensorflow as tf

    return tf.reverse(centered, [-1])  # a slice with a step of -1 takes four times as long


def mean_std_normalization(images: Any, *means_and_stds: float) -> Any:
    """`(x - mean) / std`, with all means first and all standard deviations after them.

    Both are on the scale of the pixels, 0 to 255. For Keras' "torch" mode, which divides by 255 first, multiply its
    values by 255: means 123.675, 116.28, 103.53 and standard deviations 58.395, 57.12, 57.375.
    """
    half = len(means_and_stds) // 2
    return (images - _per_channel(means_and_stds[:half])) / _per_channel(means_and_stds[half:])


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "none": none,
    "between_plus_minus_1": between_plus_minus_1,
    "mean_subtraction": mean_subtraction,
    "mean_subtraction_plus_minus_1": mean_subtraction_plus_minus_1,
    "bgr_mean_subtraction": bgr_mean_subtraction,
    "mean_std_normalization": mean_std_normalization,
}

# The number of arguments of a function per channel of the image.
NUMBERS_PER_CHANNEL = {
    "none": 0,
    "between_plus_minus_1": 0,
    "mean_subtraction": 1,
    "mean_subtraction_plus_minus_1": 1,
    "bgr_mean_subtraction": 1,
    "mean_std_normalization": 2,
}


def preprocess(images: Any, function: str, arguments: Sequence[float] = ()) -> Any:
    """Calls the named function on a float32 copy of the images.

    Args:
        images: NumPy array or tensor of any numeric dtype, 0 to 255, of a shape that ends in channels.
        function: a function of this file, or the dotted path of the user's own `f(images, *arguments)`. That one may be
            written for NumPy or for tensors: it is called with the type of `images`, and if it fails, with the other.
        arguments: the further arguments of the function.

    Returns:
        New float32 images of the same type and shape. Inside a graph, a function written for NumPy runs as Python code
        on the CPU, which XLA cannot compile.

    Raises:
        ConfigError: the function cannot be imported or called, or changes the shape.
    """
    if isinstance(images, np.ndarray):
        return _on_array(images.astype(np.float32), function, arguments)
    return _on_tensor(images, function, arguments)


def check_preprocessing(function: str, arguments: Sequence[float] | None, num_channels: int) -> None:
    """Checks a declared function and its arguments without importing anything.

    Raises:
        ConfigError: there is no such function, or the arguments do not match it or the number of channels.
    """
    if is_dotted(function):
        return
    if function not in FUNCTIONS:
        raise ConfigError(
            f"should be one of {', '.join(FUNCTIONS)}, or the dotted path of your own function, got {function!r}."
            f"{nearest(function, FUNCTIONS)}",
            "preprocess_func",
        )
    per_channel = NUMBERS_PER_CHANNEL[function]
    if per_channel == 0:
        if arguments:
            raise ConfigError(f"should be left out for {function}, got {_listed(arguments)}.", "preprocess_args")
        return
    expected = per_channel * num_channels
    if len(arguments or ()) != expected:
        got = f"{len(arguments)}: {_listed(arguments)}" if arguments else "none"
        kind = "one mean per channel" if per_channel == 1 else "the means, then the standard deviations"
        raise ConfigError(
            f"should contain {expected} {'number' if expected == 1 else 'numbers'} ({kind}) for {function} and "
            f"{num_channels} {'channel' if num_channels == 1 else 'channels'}, got {got}. "
            'preprocess_func="between_plus_minus_1" takes none, whatever the channels.',
            "preprocess_args",
        )
    if per_channel == 2 and arguments and min(arguments[num_channels:]) <= 0:
        raise ConfigError(
            f"should end in standard deviations above 0, got {_listed(arguments[num_channels:])}.", "preprocess_args"
        )


def takes_arguments(function: str) -> bool:
    """Whether the function can have arguments; the user's own functions can."""
    return NUMBERS_PER_CHANNEL.get(function, 1) > 0


def is_dotted(path: str) -> bool:
    """Whether `path` has the form of a dotted Python path, such as `my_code.prepare`."""
    parts = path.split(".")
    return len(parts) > 1 and all(part.isidentifier() for part in parts)


def _on_array(images: np.ndarray, function: str, arguments: Sequence[float]) -> np.ndarray:
    if function in FUNCTIONS:
        # Contiguous, because some libraries, such as PyTorch, refuse a reversed view.
        return np.ascontiguousarray(FUNCTIONS[function](images, *arguments))
    own = _import_own(function, arguments)
    original = images.copy()  # the first attempt may modify its images before it fails
    try:
        result = own(images, *arguments)
    except (AttributeError, TypeError):
        import tensorflow as tf

        result = own(tf.constant(original), *arguments)
    result = np.ascontiguousarray(result, np.float32)
    _check_shape(function, original.shape, result.shape)
    return result


def _on_tensor(images: Any, function: str, arguments: Sequence[float]) -> Any:
    import tensorflow as tf

    images = tf.cast(tf.convert_to_tensor(images), tf.float32)
    if function in FUNCTIONS:
        return FUNCTIONS[function](images, *arguments)
    own = _import_own(function, arguments)
    try:
        result = own(images, *arguments)
    except (AttributeError, TypeError, NotImplementedError):  # the last is raised by NumPy for a symbolic tensor
        result = tf.numpy_function(lambda array: _on_array(array.copy(), function, arguments), [images], tf.float32)
        result.set_shape(images.shape)
    result = tf.cast(result, tf.float32)
    if not result.shape.is_compatible_with(images.shape):
        _check_shape(function, images.shape, result.shape)
    return result


def _import_own(path: str, arguments: Sequence[float]) -> Callable[..., Any]:
    function = import_dotted(path)
    if not callable(function):
        raise ConfigError(f"{path} is not a function but {type(function).__name__}.", "preprocess_func")
    try:
        inspect.signature(function).bind(None, *arguments)
    except TypeError as error:
        raise ConfigError(
            f"do not fit {path}, which is called as f(images, *preprocess_args): {error}.", "preprocess_args"
        ) from None
    except ValueError:  # some functions written in C have no signature
        pass
    return function


def _check_shape(path: str, before: Sequence[int | None], after: Sequence[int | None]) -> None:
    if tuple(before) != tuple(after):
        raise ConfigError(
            f"{path} should keep the images' shape, but returned {tuple(after)} for {tuple(before)}.", "preprocess_func"
        )


def _per_channel(numbers: Sequence[float]) -> np.ndarray:
    return np.asarray(numbers, np.float32)


def _listed(numbers: Sequence[float]) -> str:
    return f"[{', '.join(f'{number:g}' for number in numbers)}]"
