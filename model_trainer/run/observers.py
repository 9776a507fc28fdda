"""Observers as values: what is computed from the gradients and updates of some steps, for `logs/`."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, final

from pydantic import Field

from model_trainer.config import Choice

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

__all__ = ["LayerNorms", "ObservedStep", "Observer"]

MOST_GROUPS = 32  # beyond, neighbours are joined into half as many


@dataclass(frozen=True)
class ObservedStep:
    """A step as an observer sees it in the graph, after its update.

    Attributes:
        step: int64 `()`, of the run, counted from 0.
        scalars: float32 `()` each, over the whole batch on all devices: "loss_sum", the sum of losses; "num_examples",
            what it is divided by; "num_broken", on how many devices loss or gradients were not finite; "num_stopping",
            how many processes were asked to stop.
        variables: of the network, those that train.
        gradients: float32, of the whole batch's loss, one for each variable, before clipping and without a loss scale;
            for an observer that uses "gradients".
        before: float32, the values of the variables before the update; for one that uses "updates".
    """

    step: tf.Tensor
    scalars: Mapping[str, tf.Tensor]
    variables: Sequence[keras.Variable]
    gradients: Sequence[tf.Tensor] = ()
    before: Sequence[tf.Tensor] = ()

    @cached_property
    def updates(self) -> Sequence[tf.Tensor]:
        """What the step added to each variable; zeros where it changed nothing. For one that uses "updates"."""
        import tensorflow as tf

        return [tf.cast(new, tf.float32) - old for new, old in zip(self.variables, self.before, strict=True)]


class Observer(Choice):
    """Computes numbers from a step without changing it. They are logged as `NAME/KEY`.

    Fields:
        every: it computes in each step whose number, counted from 0, is a multiple. In the others it costs nothing.
    """

    uses: ClassVar[tuple[str, ...]] = ()  # "gradients" and "updates", as far as it needs them

    every: int = Field(100, ge=1)

    @property
    def name(self) -> str:
        """In logs, such as "layer_norms"."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower()

    @abstractmethod
    def compute(self, step: ObservedStep) -> dict[str, tf.Tensor]:
        """Scalars by name, in the graph; on several devices as if on one."""


@final
class LayerNorms(Observer):
    """Euclidean norms of gradients, weights and updates, for each group of layers, such as `block1` of VGG19.

    A gradient that vanishes towards the first layers, or an update that is more than some hundredths of its weights,
    shows here first.
    """

    uses: ClassVar[tuple[str, ...]] = ("gradients", "updates")

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

    Args:
        paths: of the variables, in the order of the layers, such as "conv2_block1_1_conv/kernel".
    """
    groups: dict[str, list[int]] = {}
    for number, path in enumerate(paths):
        groups.setdefault(_block(path.rpartition("/")[0]), []).append(number)
    if len(groups) <= MOST_GROUPS:
        return groups
    names, half = list(groups), MOST_GROUPS // 2
    edges = [len(names) * part // half for part in range(half + 1)]
    return {
        f"{names[start]}..{names[stop - 1]}": [number for name in names[start:stop] for number in groups[name]]
        for start, stop in pairwise(edges)
    }


def _block(layer: str) -> str:
    """Up to the first number: conv2_block1_1_conv is in conv2, block2a_expand in block2."""
    begun = ""
    for part in re.findall(r"[^_/]+[_/]?", layer):
        numbered = re.match(r"(?!conv\dd)(.*?\d+)[a-z]?(?:[_/]|$)", part)
        if numbered:
            return f"{begun}{numbered[1]}"
        begun += part
    return begun
