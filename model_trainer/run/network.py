"""The network as declared values: pooling, hidden layers, dropout, freezing, regularization. Loads no Keras."""

from __future__ import annotations

from typing import Annotated, Any, Literal, final

from pydantic import BeforeValidator, Field

from model_trainer.config import Choice, Config
from model_trainer.user_code import Call, Live

__all__ = ["L1", "L2", "AnyNetwork", "Network", "OwnModel", "Regularizer", "Unfreeze"]

# A layer by its index in `model.layers` (negative ones count from the end), by its name, or by a pattern: "block1_*".
LayerNames = tuple[int | str, ...]
BatchNormMomentum = Annotated[float, Field(ge=0, lt=1)]


class Unfreeze(Config):
    """Unfreezes the frozen layers at epoch `after_epochs` (counted from 0) and trains on with `learning_rate`.

    The optimizer is reset at that point: its moving averages belong to other layers and another learning rate.

    Example:
        >>> network = Network(freeze="backbone", unfreeze=Unfreeze(after_epochs=3, learning_rate=1e-5))
    """

    after_epochs: int = Field(ge=1)
    learning_rate: float = Field(gt=0)


class Regularizer(Choice):
    """A penalty on the weights (kernels) of some layers, added to the training loss.

    Fields:
        strength: factor of the penalty.
        layers: names or patterns of the layers, or their indices in `model.layers`; `("*",)` is all of them.
    """

    strength: float = Field(ge=0)
    layers: LayerNames = ("*",)


@final
class L1(Regularizer):
    """L1 regularization: strength * sum(|w|).

    Example:
        >>> network = Network(regularize=(L1(1e-6, layers=("head_dense_*",)),))
    """


@final
class L2(Regularizer):
    """L2 regularization: strength * sum(w²).

    Example:
        >>> network = Network(regularize=(L2(1e-4),))
    """


class AnyNetwork(Choice):
    """The network that is trained.

    Fields:
        freeze: "none"; "backbone", every layer below the head; or layers by index, name or pattern. Frozen batch
            normalization runs in inference mode, as in Keras.
        unfreeze: when the frozen layers start to train; None keeps them frozen.
        regularize: L1 and L2 penalties on weights.
        batch_norm_momentum: momentum of the moving mean and variance of batch normalization. "auto" averages over about
            500 images, and recomputes both from training images before each validation; "keras" takes each layer's own,
            0.99 or 0.999, with which they stay near their initial values in a short run.
    """

    freeze: Literal["none", "backbone"] | LayerNames = "none"
    unfreeze: Unfreeze | None = None
    regularize: tuple[Regularizer, ...] = ()
    batch_norm_momentum: Literal["auto", "keras"] | BatchNormMomentum = "auto"


@final
class Network(AnyNetwork):
    """The spec's backbone without its top layers, followed by a new head.

    Fields:
        pooling: how the backbone's last feature map becomes a vector.
        dense: units of the hidden dense layers in the head, with ReLU, each followed by dropout.
        dropout_rate: fraction of the head's inputs that dropout sets to 0.

    Example:
        >>> network = Network(pooling="max", dense=(256,), dropout_rate=0.5, freeze="backbone")
    """

    pooling: Literal["avg", "max", "flatten"] = "avg"
    dense: tuple[int, ...] = ()
    dropout_rate: float = Field(0.2, ge=0, lt=1)


@final
class OwnModel(AnyNetwork):
    """The user's own Keras model, functional or Sequential, in place of backbone and head.

    Fields:
        model: `Call("my_code.make_model", ...)`, which can be written to JSON, or a live `keras.Model`. Its outputs are
            logits or end in the task's activation. It is copied: training does not change a live model's weights.
        features: name of the backbone's last layer, up to which `freeze="backbone"` freezes. None takes the last
            feature map that every path through the model passes.

    Example:
        >>> layers = [keras.Input((32, 32, 3)), keras.layers.Conv2D(8, 3), keras.layers.GlobalMaxPooling2D()]
        >>> model = keras.Sequential([*layers, keras.layers.Dense(2)])
        >>> network = OwnModel(model)
    """

    model: Call | Live
    features: str | None = None

    def make(self, num_classes: int) -> Any:
        """Returns the model; `num_classes` is passed to a function that accepts it, unless it was declared."""
        if isinstance(self.model, Live):
            return self.model.value
        needs_num_classes = self.model.accepts("num_classes") and "num_classes" not in self.model.arguments
        return self.model.make(**({"num_classes": num_classes} if needs_num_classes else {}))


def _own_model(value: Any) -> Any:
    """Wraps a bare `Call` or `keras.Model` in `Run.network` into an `OwnModel`."""
    if isinstance(value, (Call, Live)) or any(base.__name__ == "Model" for base in type(value).__mro__):
        return OwnModel(model=value)
    return value


NetworkField = Annotated[AnyNetwork, BeforeValidator(_own_model)]
