"""Layers for CPUs that compute in bfloat16: faster than TensorFlow's, and accurate where those are not.

Only the training copy uses them. They compute the same as Keras' own layers, from the same weights. They avoid the
following (measurements in docs/decisions/0018-batch-normalization.md): the gradient of a depthwise convolution with
strides, or with a kernel wider than 3 pixels, takes up to 70 times as long as the convolution; a sigmoid in bfloat16
takes four times as long as in float32; each elementwise operation on a feature map is a pass through memory, and XLA
fuses several into one. And `BiasAddGrad` sums in bfloat16: over 50,000 pixels the gradient of a bias is 62 % off.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, final

import keras
import tensorflow as tf

__all__ = ["cpu_form"]

WINDOW = 3  # pixels, the widest kernel whose gradient is fast


def cpu_form(layer: keras.Layer) -> keras.Layer:
    """Returns `layer`, which is not built yet, or a layer with the same settings that trains better on this CPU."""
    if layer.compute_dtype != "bfloat16" or tf.config.list_logical_devices("GPU"):
        return layer
    form = _FORMS.get(type(layer))
    if form is None or not form.fits(layer):
        return layer
    new: keras.Layer = form.from_config(layer.get_config())
    return new


@final
class FastDepthwiseConv2D(keras.layers.DepthwiseConv2D):
    """Keras' layer with a faster gradient."""

    @staticmethod
    def fits(layer: keras.layers.DepthwiseConv2D) -> bool:
        return _is_plain(layer) and (_is_slow(layer) or layer.use_bias)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        outputs = _depthwise_conv(inputs, self.kernel, self.strides[0], self.padding)
        if self.use_bias:
            outputs = _add_bias(outputs, self.bias)
        return outputs if self.activation is None else self.activation(outputs)


@final
class FastSeparableConv2D(keras.layers.SeparableConv2D):
    """Keras' layer with a faster gradient."""

    @staticmethod
    def fits(layer: keras.layers.SeparableConv2D) -> bool:
        return _is_plain(layer) and _is_slow(layer)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        outputs = _depthwise_conv(inputs, self.depthwise_kernel, self.strides[0], self.padding)
        outputs = tf.nn.conv2d(outputs, self.pointwise_kernel, 1, "VALID")
        if self.use_bias:
            outputs = _add_bias(outputs, self.bias)
        return outputs if self.activation is None else self.activation(outputs)


@final
class ExactDense(keras.layers.Dense):
    """Keras' layer with a bias gradient that is summed in float32."""

    @staticmethod
    def fits(layer: keras.layers.Dense) -> bool:
        return bool(layer.use_bias) and not layer.lora_enabled and layer.quantization_mode is None

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        outputs = _add_bias(keras.ops.matmul(inputs, self.kernel), self.bias)
        return outputs if self.activation is None else self.activation(outputs)


@final
class ExactEinsumDense(keras.layers.EinsumDense):
    """Keras' layer with a bias gradient that is summed in float32."""

    @staticmethod
    def fits(layer: keras.layers.EinsumDense) -> bool:
        # Keras adds a bias with several axes without BiasAdd, unless all axes but the last have length 1.
        axes = layer.bias_axes or ""
        return len(axes) == 1 and layer.equation.endswith(axes) and layer.quantization_mode is None

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        outputs = _add_bias(keras.ops.einsum(self.equation, inputs, self.kernel), self.bias)
        return outputs if self.activation is None else self.activation(outputs)


@final
class ExactConv2D(keras.layers.Conv2D):
    """Keras' layer with a bias gradient that is summed in float32; for most convolutions TensorFlow does so itself."""

    @staticmethod
    def fits(layer: keras.layers.Conv2D) -> bool:
        # TensorFlow fuses the gradients of kernel and bias of other convolutions, and then sums in float32.
        is_not_fused = layer.groups > 1 or set(layer.dilation_rate) != {1}
        return bool(layer.use_bias) and is_not_fused and layer.data_format == "channels_last"

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        outputs = _add_bias(self.convolution_op(inputs, self.kernel), self.bias)
        return outputs if self.activation is None else self.activation(outputs)


@final
class FastActivation(keras.layers.Activation):
    """ReLU, and SiLU (swish) with a float32 gradient, in a single pass through memory."""

    @staticmethod
    def fits(layer: keras.layers.Activation) -> bool:
        return layer.activation in (keras.activations.relu, keras.activations.silu) and _xla_works()

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return _relu(inputs) if self.activation is keras.activations.relu else _silu(inputs)


@final
class FastReLU(keras.layers.ReLU):
    """ReLU6 with a single pass through memory for each of forward and backward."""

    @staticmethod
    def fits(layer: keras.layers.ReLU) -> bool:
        return layer.max_value == 6 and not layer.negative_slope and not layer.threshold and _xla_works()

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return _relu6(inputs)


_FORMS: dict[type, Any] = {
    keras.layers.Conv2D: ExactConv2D,
    keras.layers.Dense: ExactDense,
    keras.layers.EinsumDense: ExactEinsumDense,
    keras.layers.DepthwiseConv2D: FastDepthwiseConv2D,
    keras.layers.SeparableConv2D: FastSeparableConv2D,
    keras.layers.Activation: FastActivation,
    keras.layers.ReLU: FastReLU,
}


def _is_plain(layer: Any) -> bool:
    height, width = layer.strides
    return bool(layer.data_format == "channels_last" and set(layer.dilation_rate) == {1} and height == width)


def _is_slow(layer: Any) -> bool:
    return bool(max(layer.strides) > 1 or max(layer.kernel_size) > WINDOW)


def _depthwise_conv(images: tf.Tensor, kernel: tf.Tensor, stride: int, padding: str) -> tf.Tensor:
    """`tf.nn.depthwise_conv2d` with a faster gradient, for bfloat16 images `(batch, height, width, channels)`."""
    options = {"strides": [1, stride, stride, 1], "padding": padding.upper()}

    @tf.custom_gradient
    def convolve(images: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return image_gradient(upstream), kernel_gradient(upstream)

        def image_gradient(upstream: tf.Tensor) -> tf.Tensor:
            # With strides bfloat16 is slow: 52 ms where float32 takes 5 (32 x 112 x 112 x 64, 3 x 3).
            dtype = tf.float32 if stride > 1 else images.dtype
            back = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
                input_sizes=tf.shape(images),
                filter=tf.cast(kernel, dtype),
                out_backprop=tf.cast(upstream, dtype),
                **options,
            )
            return tf.cast(back, images.dtype)

        def kernel_gradient(upstream: tf.Tensor) -> tf.Tensor:
            if max(kernel.shape[:2]) <= WINDOW and (stride == 1 or padding == "valid"):
                return tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
                    input=images, filter_sizes=kernel.shape, out_backprop=upstream, **options
                )
            return _kernel_gradient_in_windows(images, kernel.shape, upstream, stride, padding)

        return tf.nn.depthwise_conv2d(images, kernel, **options), gradient

    # Cast to a tensor, because with a variable tf.custom_gradient requires a `variables` argument.
    return convolve(images, tf.cast(kernel, images.dtype))


def _kernel_gradient_in_windows(
    images: tf.Tensor, shape: tf.TensorShape, upstream: tf.Tensor, stride: int, padding: str
) -> tf.Tensor:
    """The gradient of a large kernel, 3 x 3 of its pixels at a time, as that of a small kernel on shifted images.

    Images are padded first, even for a single window: with "SAME" and strides, TensorFlow's operation leaves memory
    uninitialized for kernel pixels that overlap with nothing but padding.
    """
    height, width = shape[:2]
    if padding == "same":
        images = tf.pad(images, [[0, 0], _edges(images, 1, height, stride), _edges(images, 2, width, stride), [0, 0]])
    spans = [(_length(upstream, axis) - 1) * stride for axis in (1, 2)]
    rows = []
    for top in range(0, height, WINDOW):
        window_height = min(WINDOW, height - top)
        columns = []
        for left in range(0, width, WINDOW):
            window_width = min(WINDOW, width - left)
            shifted = images[:, top : top + spans[0] + window_height, left : left + spans[1] + window_width]
            columns.append(
                tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
                    input=shifted,
                    filter_sizes=[window_height, window_width, *shape[2:]],
                    out_backprop=upstream,
                    strides=[1, stride, stride, 1],
                    padding="VALID",
                )
            )
        rows.append(tf.concat(columns, axis=1))
    return tf.concat(rows, axis=0)


def _length(values: tf.Tensor, axis: int) -> int | tf.Tensor:
    static = values.shape[axis]
    return tf.shape(values)[axis] if static is None else static


def _edges(images: tf.Tensor, axis: int, kernel: int, stride: int) -> list[int | tf.Tensor]:
    """The pixels that "same" padding adds before and after the images.

    Source: https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2
    """
    length = _length(images, axis)
    total = (-(-length // stride) - 1) * stride + kernel - length
    total = max(0, total) if isinstance(total, int) else tf.maximum(0, total)
    return [total // 2, total - total // 2]


def _add_bias(values: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """Adds `bias` to the last axis of `values`, with a float32 sum in the gradient."""

    @tf.custom_gradient
    def add(values: tf.Tensor, bias: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
        axes = list(range(len(values.shape) - 1))
        return tf.nn.bias_add(values, bias), lambda upstream: (upstream, tf.reduce_sum(upstream, axes))

    return add(values, tf.cast(bias, values.dtype))


@tf.custom_gradient
def _silu(inputs: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
    return tf.nn.silu(inputs), lambda upstream: _silu_gradient(inputs, upstream)


@tf.custom_gradient
def _relu(inputs: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
    outputs = tf.nn.relu(inputs)  # TensorFlow fuses it with the operation before it
    return outputs, lambda upstream: _relu_gradient(outputs, upstream)


@tf.custom_gradient
def _relu6(inputs: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
    return _relu6_forward(inputs), lambda upstream: _relu6_gradient(inputs, upstream)


_fused = functools.partial(tf.function, autograph=False, jit_compile=True)


@_fused
def _silu_gradient(inputs: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    wide = tf.cast(inputs, tf.float32)
    sigmoid = tf.sigmoid(wide)
    gradient = tf.cast(upstream, tf.float32) * (sigmoid * (1.0 + wide * (1.0 - sigmoid)))
    return tf.cast(gradient, inputs.dtype)


@_fused
def _relu_gradient(outputs: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    return tf.raw_ops.ReluGrad(gradients=upstream, features=outputs)


@_fused
def _relu6_forward(inputs: tf.Tensor) -> tf.Tensor:
    return tf.nn.relu6(inputs)


@_fused
def _relu6_gradient(inputs: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    return tf.raw_ops.Relu6Grad(gradients=upstream, features=inputs)


@functools.cache
def _xla_works() -> bool:
    """Whether this build of TensorFlow compiles for the CPU."""
    try:
        _relu6_forward(tf.constant([7.0], tf.bfloat16))
    except (tf.errors.OpError, ValueError):
        return False
    return True
