"""Observers as values: what is computed from the gradients and updates of some steps, for `logs/`."""

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

MAX_GROUPS, MAX_PARTS = 32, 16

Used = Literal["gradients", "updates"]


@dataclass(frozen=True)
class ObservedStep:
    """A step as an observer sees it in the graph, after its update.

    Attributes:
        step: int64 `()`, of the run, counted from 0.
        scalars: float32 `()` each, over the whole batch on all devices: "loss_sum", the sum of losses; "num_examples",
            what it is divided by (with `loss_mean="weights"` the sum of weights); "num_broken", on how many devices
            loss or gradients were not finite, but for what a loss scale made too large; "num_stopping", on how many
            devices the process was asked to stop.
        variables: of the network, those that train.
    """

    step: tf.Tensor
    scalars: Mapping[str, tf.Tensor]
    variables: Sequence[keras.Variable]
    _gradients: Sequence[tf.Tensor] | None = None
    _before: Sequence[tf.Tensor] | None = None

    @property
    def gradients(self) -> Sequence[tf.Tensor]:
        """float32, of the whole batch's loss, one for each variable, before clipping and without a loss scale."""
        return _used(self._gradients, "gradients")

    @property
    def before(self) -> Sequence[tf.Tensor]:
        """float32, the values of the variables before the update."""
        return _used(self._before, "updates")

    @cached_property
    def updates(self) -> Sequence[tf.Tensor]:
        """float32, what the step added to each variable; zeros where it changed nothing."""
        import tensorflow as tf

        return [tf.cast(new, tf.float32) - old for new, old in zip(self.variables, self.before, strict=True)]


def _used(values: Sequence[tf.Tensor] | None, what: str) -> Sequence[tf.Tensor]:
    if values is None:
        raise ConfigError(
            f'asks for {what} and has to say so: uses: ClassVar[tuple[Used, ...]] = ("{what}",)', "observers"
        )
    return values


class Observer(Choice):
    """Computes numbers from a step without changing it. They are logged as `NAME/KEY`.

    Fields:
        every: it computes in each step whose number, counted from 0, is a multiple.
    """

    uses: ClassVar[tuple[Used, ...]] = ()  # what `compute` asks for; each takes a copy in steps that are due

    every: int = Field(100, ge=1)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        unknown = set(cls.uses) - set(get_args(Used))
        if unknown:
            raise TypeError(f"{cls.__name__}.uses has {unknown.pop()!r}; it may have {' and '.join(get_args(Used))}.")

    @property
    def name(self) -> str:
        """In logs, such as "layer_norms"."""
        return to_snake(type(self).__name__)

    @abstractmethod
    def compute(self, step: ObservedStep) -> dict[str, tf.Tensor]:
        """Scalars by name, in the graph; on several devices as if on one."""


@final
class LayerNorms(Observer):
    """Euclidean norms of gradients, weights and updates, for each group of layers, such as `block1` of VGG19.

    A gradient that vanishes towards the first layers, or an update that is more than some hundredths of its weights,
    shows here first.
    """

    uses: ClassVar[tuple[Used, ...]] = ("gradients", "updates")

    def compute(self, step: ObservedStep) -> dict[str, tf.Tensor]:
        import tensorflow as tf

        groups = layer_groups([variable.path for variable in step.variables])
        norms = {}
        for kind, tensors in (("gradient", step.gradients), ("weights", step.before), ("update", step.updates)):
            squares = [tf.nn.l2_loss(tf.cast(tensor, tf.float32)) for tensor in tensors]
            for group, numbers in groups.items():
                norms[f"{kind}/{group}"] = tf.sqrt(2.0 * tf.add_n([squares[number] for number in numbers]))
        return norms


def layer_groups(paths: Sequence[str]) -> dict[str, list[int]]:
    """Which variables, by position, belong together: those of a block, by the beginning of its layers' names.

    A layer that Keras has named, such as `conv2d_7`, is of the block before it. Where names tell no blocks that follow
    each other, as in Inception and NASNet, the layers are cut into at most 16 parts: "part_01" is next to the images.

    Args:
        paths: of the variables, in the order of the layers, such as "conv2_block1_1_conv/kernel".
    """
    groups: list[tuple[str, list[int]]] = []
    layers: list[list[int]] = []
    last = None
    for number, path in enumerate(paths):
        layer = path.rpartition("/")[0]
        if layer != last:
            layers.append([])
        layers[-1].append(number)
        last = layer
        name = _block(layer)
        if groups and (name == groups[-1][0] or _NAMED_BY_KERAS.fullmatch(layer)):
            groups[-1][1].append(number)
        else:
            groups.append((name, [number]))
    named = dict(groups)
    follow_each_other = len(named) == len(groups) and not any(map(_NAMED_BY_KERAS.fullmatch, named))
    if follow_each_other and min(3, len(layers)) <= len(named) <= MAX_GROUPS:
        return named
    parts = min(len(layers), MAX_PARTS)
    edges = [len(layers) * part // parts for part in range(parts + 1)]
    return {
        f"part_{part:02}": [number for layer in layers[start:stop] for number in layer]
        for part, (start, stop) in enumerate(pairwise(edges), 1)
    }


# Such names count on with each network that is built in a process, and say nothing of where a layer is.
_NAMED_BY_KERAS = re.compile(
    r"(?:(?:depthwise_|separable_)?conv[123]d(?:_transpose)?|dense|einsum_dense|embedding|multi_head_attention"
    r"|(?:fused_)?(?:batch|layer|group|unit|rms)_normalization|p_?re_?lu|sequential|functional|model)(?:_\d+)?(?:/.*)?"
)


def _block(layer: str) -> str:
    """Up to the first number: conv2_block1_1_conv is in conv2, block2a_expand in block2."""
    begun = ""
    for part in re.findall(r"[^_/]+[_/]?", layer):
        numbered = re.match(r"(?!conv\dd)(.*?\d+)[a-z]?(?:[_/]|$)", part)
        if numbered:
            return f"{begun}{numbered[1]}"
        begun += part
    return begun
