"""Observers as declared values: statistics of gradients, weights and updates, logged at regular steps."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final, get_args

from pydantic import Field
from pydantic.alias_generators import to_snake

from model_trainer.config import Choice
from model_trainer.errors import ConfigError

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

__all__ = ["LayerNorms", "ObservedStep", "Observer"]

MAX_GROUPS, MAX_EQUAL_GROUPS = 32, 16

Used = Literal["gradients", "updates"]


@dataclass(frozen=True)
class ObservedStep:
    """A training step as observers see it, in the graph, after the update.

    Attributes:
        step: int64 `()`, number of the step in the run, counted from 0.
        scalars: float32 `()` each, over the whole batch on all devices: "loss_sum", the sum of losses; "num_examples",
            its divisor (with `loss_mean="weights"` the sum of weights); "num_broken", the number of devices whose loss
            or gradients were not finite, except by overflow from loss scaling; "num_stopping", the number of devices
            whose process was asked to stop.
        variables: the network's trainable variables.
    """

    step: tf.Tensor
    scalars: Mapping[str, tf.Tensor]
    variables: Sequence[keras.Variable]
    _gradients: Sequence[tf.Tensor] | None = None
    _before: Sequence[tf.Tensor] | None = None

    @property
    def gradients(self) -> Sequence[tf.Tensor]:
        """float32 gradients of the whole batch's loss, one per variable, before clipping and without loss scaling."""
        return _require_declared(self._gradients, "gradients")

    @property
    def before(self) -> Sequence[tf.Tensor]:
        """float32 values of the variables before the update."""
        return _require_declared(self._before, "updates")

    @cached_property
    def updates(self) -> Sequence[tf.Tensor]:
        """float32 difference that the step made to each variable; zeros if it was skipped."""
        import tensorflow as tf

        return [tf.cast(new, tf.float32) - old for new, old in zip(self.variables, self.before, strict=True)]


def _require_declared(values: Sequence[tf.Tensor] | None, what: str) -> Sequence[tf.Tensor]:
    if values is None:
        raise ConfigError(
            f'reads {what} and must declare it: uses: ClassVar[tuple[Used, ...]] = ("{what}",)', "observers"
        )
    return values


class Observer(Choice):
    """Computes scalars from a training step without changing it; they are logged as `NAME/KEY`.

    Fields:
        every: steps from one computation to the next; step 0 is the first.
    """

    uses: ClassVar[tuple[Used, ...]] = ()  # what `compute` reads; each is a copy in memory in the observed steps

    every: int = Field(100, ge=1)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        unknown = set(cls.uses) - set(get_args(Used))
        if unknown:
            raise TypeError(f"{cls.__name__}.uses has {unknown.pop()!r}; it may have {' and '.join(get_args(Used))}.")

    @property
    def name(self) -> str:
        """Name in logs, such as "layer_norms"."""
        return to_snake(type(self).__name__)

    @abstractmethod
    def compute(self, step: ObservedStep) -> dict[str, tf.Tensor]:
        """Returns scalar tensors by name. It runs in the graph, and sees the whole batch of all devices."""


@final
class LayerNorms(Observer):
    """Euclidean (L2) norms of gradients, weights and updates, for each group of layers, such as `block1` of VGG19.

    Gradients that vanish towards the first layers, and updates of more than a few percent of the weights, show here
    first.

    Example:
        >>> run = Run(
        ...     spec=ModelSpec.named("vgg19"),
        ...     train_data=ImageFolder("data/train"),
        ...     observers=(LayerNorms(every=50),),
        ... )
    """

    uses: ClassVar[tuple[Used, ...]] = ("gradients", "updates")

    def compute(self, step: ObservedStep) -> dict[str, tf.Tensor]:
        import tensorflow as tf

        groups = layer_groups([variable.path for variable in step.variables])
        norms = {}
        for kind, tensors in (("gradient", step.gradients), ("weights", step.before), ("update", step.updates)):
            half_squares = [tf.nn.l2_loss(tf.cast(tensor, tf.float32)) for tensor in tensors]
            for group, indices in groups.items():
                norms[f"{kind}/{group}"] = tf.sqrt(2.0 * tf.add_n([half_squares[index] for index in indices]))
        return norms


def layer_groups(paths: Sequence[str]) -> dict[str, list[int]]:
    """Groups variables by the block that their layer belongs to, which is the prefix of its name.

    A layer with a default name of Keras, such as `conv2d_7`, joins the block before it. If the names give no
    consecutive blocks, as in Inception and NASNet, the layers are divided into at most 16 groups of equal size;
    "part_01" is next to the input.

    Args:
        paths: paths of the variables, in the order of the layers, such as "conv2_block1_1_conv/kernel".

    Returns:
        For each group the indices of its variables in `paths`.
    """
    groups: list[tuple[str, list[int]]] = []
    layers: list[list[int]] = []
    previous_layer = None
    for index, path in enumerate(paths):
        layer = path.rpartition("/")[0]
        if layer != previous_layer:
            layers.append([])
        layers[-1].append(index)
        previous_layer = layer
        block = _block(layer)
        if groups and (block == groups[-1][0] or _DEFAULT_NAME.fullmatch(layer)):
            groups[-1][1].append(index)
        else:
            groups.append((block, [index]))
    blocks = dict(groups)
    are_consecutive = len(blocks) == len(groups) and not any(map(_DEFAULT_NAME.fullmatch, blocks))
    if are_consecutive and min(3, len(layers)) <= len(blocks) <= MAX_GROUPS:
        return blocks
    num_groups = min(len(layers), MAX_EQUAL_GROUPS)
    edges = [len(layers) * number // num_groups for number in range(num_groups + 1)]
    return {
        f"part_{number:02}": [index for layer in layers[start:stop] for index in layer]
        for number, (start, stop) in enumerate(pairwise(edges), 1)
    }


# Keras numbers its default names through all networks of a process, so they do not tell where in a network a layer is.
_DEFAULT_NAME = re.compile(
    r"(?:(?:depthwise_|separable_)?conv[123]d(?:_transpose)?|dense|einsum_dense|embedding|multi_head_attention"
    r"|(?:fused_)?(?:batch|layer|group|unit|rms)_normalization|p_?re_?lu|sequential|functional|model)(?:_\d+)?(?:/.*)?"
)


def _block(layer: str) -> str:
    """The name up to its first number: conv2_block1_1_conv is in conv2, block2a_expand in block2."""
    prefix = ""
    for word in re.findall(r"[^_/]+[_/]?", layer):
        numbered = re.match(r"(?!conv\dd)(.*?\d+)[a-z]?(?:[_/]|$)", word)
        if numbered:
            return f"{prefix}{numbered[1]}"
        prefix += word
    return prefix
