"""Forms of layers for a CPU that computes in bfloat16: faster, and right where TensorFlow's are not.

Only the training copy has them. They compute what Keras' own layers do, from the same weights. What they avoid
(docs/decisions/0018-batch-normalisation.md has figures): the gradient of a depthwise convolution with strides, or with
a kernel wider than 3 pixels, takes up to 70 times as long as the convolution; a sigmoid in bfloat16 four times as long
as in float32; each operation on every number of a feature map costs a pass through memory, which XLA makes one of. And
`BiasAddGrad` adds up in bfloat16: over 50,000 pixels the gradient of a bias is 62 % off.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, final

import keras
import tensorflow as tf

__all__ = ["cpu_form"]

WINDOW = 3  # the widest kernel of which the gradient is fast


def cpu_form(layer: keras.Layer) -> keras.Layer:
    """`layer`, not built yet, or another one of the same settings that trains better on the devices that there are."""
    if layer.compute_dtype != "bfloat16" or tf.config.list_logical_devices("GPU"):
        return layer
    form = _FORMS.get(type(layer))
    if form is None or not form.fits(layer):
        return layer
    made: keras.Layer = form.from_config(layer.get_config())
    return made


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
    """Keras' layer with a gradient of the bias that is added up in float32."""

    @staticmethod
    def fits(layer: keras.layers.Dense) -> bool:
        return bool(layer.use_bias) and not layer.lora_enabled and layer.quantization_mode is None

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        outputs = _add_bias(keras.ops.matmul(inputs, self.kernel), self.bias)
        return outputs if self.activation is None else self.activation(outputs)


@final
class ExactEinsumDense(keras.layers.EinsumDense):
    """Keras' layer with a gradient of the bias that is added up in float32."""

    @staticmethod
    def fits(layer: keras.layers.EinsumDense) -> bool:
        # Keras adds a bias of several axes without BiasAdd, unless all but the last have one entry; that is left to it.
        axes = layer.bias_axes or ""
        return len(axes) == 1 and layer.equation.endswith(axes) and layer.quantization_mode is None

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        outputs = _add_bias(keras.ops.einsum(self.equation, inputs, self.kernel), self.bias)
        return outputs if self.activation is None else self.activation(outputs)


@final
class ExactConv2D(keras.layers.Conv2D):
    """Keras' layer with a gradient of the bias that is added up in float32; that of most is so by themselves."""

    @staticmethod
    def fits(layer: keras.layers.Conv2D) -> bool:
        # TensorFlow joins the gradients of kernel and bias of others, and adds up in float32 then.
        is_other = layer.groups > 1 or set(layer.dilation_rate) != {1}
        return bool(layer.use_bias) and is_other and layer.data_format == "channels_last"

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        outputs = _add_bias(self.convolution_op(inputs, self.kernel), self.bias)
        return outputs if self.activation is None else self.activation(outputs)


@final
class FastActivation(keras.layers.Activation):
    """ReLU, and SiLU (swish) with a gradient that is computed in float32, in one pass."""

    @staticmethod
    def fits(layer: keras.layers.Activation) -> bool:
        return layer.activation in (keras.activations.relu, keras.activations.silu) and _xla_works()

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return _relu(inputs) if self.activation is keras.activations.relu else _silu(inputs)


@final
class FastReLU(keras.layers.ReLU):
    """ReLU6, forward and backward in one pass each."""

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
    """`tf.nn.depthwise_conv2d` of bfloat16 images; images `(batch, height, width, channels)`."""
    options = {"strides": [1, stride, stride, 1], "padding": padding.upper()}

    @tf.custom_gradient
    def convolve(images: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
        def gradient(of_outputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return of_images(of_outputs), of_kernel(of_outputs)

        def of_images(of_outputs: tf.Tensor) -> tf.Tensor:
            # With strides there is no fast bfloat16: 52 ms where float32 takes 5 (32 x 112 x 112 x 64, 3 x 3).
            dtype = tf.float32 if stride > 1 else images.dtype
            back = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
                input_sizes=tf.shape(images),
                filter=tf.cast(kernel, dtype),
                out_backprop=tf.cast(of_outputs, dtype),
                **options,
            )
            return tf.cast(back, images.dtype)

        def of_kernel(of_outputs: tf.Tensor) -> tf.Tensor:
            if max(kernel.shape[:2]) <= WINDOW and (stride == 1 or padding == "valid"):
                return tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
                    input=images, filter_sizes=kernel.shape, out_backprop=of_outputs, **options
                )
            return _kernel_gradient_in_windows(images, kernel.shape, of_outputs, stride, padding)

        return tf.nn.depthwise_conv2d(images, kernel, **options), gradient

    return convolve(images, tf.cast(kernel, images.dtype))  # a tensor: of variables TensorFlow asks for more


def _kernel_gradient_in_windows(
    images: tf.Tensor, shape: tf.TensorShape, of_outputs: tf.Tensor, stride: int, padding: str
) -> tf.Tensor:
    """The gradient of a kernel, 3 x 3 of its pixels at a time: each is one of a small kernel on shifted images.

    Images are padded first, also for one window: with "SAME" and strides, TensorFlow's operation leaves what was in
    memory where a pixel of the kernel meets nothing but padding.
    """
    height, width = shape[:2]
    if padding == "same":
        images = tf.pad(images, [[0, 0], _edges(images, 1, height, stride), _edges(images, 2, width, stride), [0, 0]])
    spans = [(_length(of_outputs, axis) - 1) * stride for axis in (1, 2)]
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
                    out_backprop=of_outputs,
                    strides=[1, stride, stride, 1],
                    padding="VALID",
                )
            )
        rows.append(tf.concat(columns, axis=1))
    return tf.concat(rows, axis=0)


def _length(values: tf.Tensor, axis: int) -> int | tf.Tensor:
    known = values.shape[axis]
    return tf.shape(values)[axis] if known is None else known


def _edges(images: tf.Tensor, axis: int, kernel: int, stride: int) -> list[int | tf.Tensor]:
    """What "same" padding adds before and after the images.

    Source: https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2
    """
    length = _length(images, axis)
    total = (-(-length // stride) - 1) * stride + kernel - length
    total = max(0, total) if isinstance(total, int) else tf.maximum(0, total)
    return [total // 2, total - total // 2]


def _add_bias(values: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """`values` ends in the axis of `bias`."""

    @tf.custom_gradient
    def add(values: tf.Tensor, bias: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
        axes = list(range(len(values.shape) - 1))
        return tf.nn.bias_add(values, bias), lambda of_sums: (of_sums, tf.reduce_sum(of_sums, axes))

    return add(values, tf.cast(bias, values.dtype))


@tf.custom_gradient
def _silu(inputs: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
    return tf.nn.silu(inputs), lambda of_outputs: _silu_gradient(inputs, of_outputs)


@tf.custom_gradient
def _relu(inputs: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
    outputs = tf.nn.relu(inputs)  # TensorFlow joins it with the operation before it
    return outputs, lambda of_outputs: _relu_gradient(outputs, of_outputs)


@tf.custom_gradient
def _relu6(inputs: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
    return _relu6_forward(inputs), lambda of_outputs: _relu6_gradient(inputs, of_outputs)


_in_one_pass = functools.partial(tf.function, autograph=False, jit_compile=True)


@_in_one_pass
def _silu_gradient(inputs: tf.Tensor, of_outputs: tf.Tensor) -> tf.Tensor:
    wide = tf.cast(inputs, tf.float32)
    sigmoid = tf.sigmoid(wide)
    gradient = tf.cast(of_outputs, tf.float32) * (sigmoid * (1.0 + wide * (1.0 - sigmoid)))
    return tf.cast(gradient, inputs.dtype)


@_in_one_pass
def _relu_gradient(outputs: tf.Tensor, of_outputs: tf.Tensor) -> tf.Tensor:
    return tf.raw_ops.ReluGrad(gradients=of_outputs, features=outputs)


@_in_one_pass
def _relu6_forward(inputs: tf.Tensor) -> tf.Tensor:
    return tf.nn.relu6(inputs)


@_in_one_pass
def _relu6_gradient(inputs: tf.Tensor, of_outputs: tf.Tensor) -> tf.Tensor:
    return tf.raw_ops.Relu6Grad(gradients=of_outputs, features=inputs)


@functools.cache
def _xla_works() -> bool:
    """Whether this build of TensorFlow compiles for the CPU."""
    try:
        _relu6_forward(tf.constant([7.0], tf.bfloat16))
    except (tf.errors.OpError, ValueError):
        return False
    return True
