"""The default head: global pooling, hidden dense layers, and a dense layer of logits for each output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import keras

__all__ = ["HeadOptions", "make_head"]


class HeadOptions(Protocol):
    """The options of a head; see `Network`."""

    @property
    def pooling(self) -> Literal["avg", "max", "flatten"]: ...

    @property
    def dense(self) -> tuple[int, ...]: ...

    @property
    def dropout_rate(self) -> float: ...


def make_head(
    features: keras.KerasTensor, options: HeadOptions, output_names: tuple[str, ...], num_classes: int
) -> list[keras.KerasTensor]:
    """Builds a head and returns the logits of each output.

    Args:
        features: `(batch, height, width, channels)`, or `(batch, channels)`.
        options: pooling, hidden layers and dropout.
        output_names: names of several outputs; empty for a single one.
        num_classes: units of each output.
    """
    import keras

    features = _pooled(features, options.pooling)
    for number, units in enumerate(options.dense, start=1):
        features = keras.layers.Dense(units, activation="relu", name=f"head_dense_{number}")(features)
        if options.dropout_rate:
            features = keras.layers.Dropout(options.dropout_rate, name=f"head_dropout_{number}")(features)
    if options.dropout_rate and not options.dense:
        features = keras.layers.Dropout(options.dropout_rate, name="head_dropout")(features)
    names = [f"logits_{name}" for name in output_names] or ["logits"]
    return [keras.layers.Dense(num_classes, name=name)(features) for name in names]


def _pooled(features: Any, pooling: str) -> Any:
    import keras

    if len(features.shape) == 2:  # the user's own backbone has pooled already
        return features
    if pooling == "flatten":
        return keras.layers.Flatten(name="head_flatten")(features)
    layer = keras.layers.GlobalAveragePooling2D if pooling == "avg" else keras.layers.GlobalMaxPooling2D
    return layer(name="head_pooling")(features)
