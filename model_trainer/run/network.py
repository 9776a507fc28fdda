"""What the network is: declared values only, no Keras is loaded."""

from __future__ import annotations

from typing import Annotated, Any, Literal, final

from pydantic import BeforeValidator, Field

from model_trainer.config import Call, Choice, Config, Live

__all__ = ["L1", "L2", "AnyNetwork", "Network", "OwnModel", "Regularizer", "Unfreeze"]

# A layer by position in `model.layers` (negative counts from the end), by name, or by a pattern such as "block1_*".
LayerNames = tuple[int | str, ...]
BatchNormMomentum = Annotated[float, Field(ge=0, lt=1)]


class Unfreeze(Config):
    """From epoch `after_epochs` on (counted from 0) the frozen layers train too, with `learning_rate`.

    The optimizer starts anew there: its averages were made for other layers and another rate.
    """

    after_epochs: int = Field(ge=1)
    learning_rate: float = Field(gt=0)


class Regularizer(Choice):
    """A penalty on the weights (kernels) of the chosen layers, added to the training loss."""

    strength: float = Field(ge=0)
    layers: LayerNames = ("*",)


@final
class L1(Regularizer):
    """strength * sum(|w|)."""


@final
class L2(Regularizer):
    """strength * sum(w²)."""


class AnyNetwork(Choice):
    """The network that is trained.

    Fields:
        freeze: "none"; "backbone", all below the head; or layers by position, name or pattern. Frozen batch
            normalisation runs in inference mode, as in Keras.
        unfreeze: when the frozen layers join in, if ever.
        regularize: penalties on weights.
        batch_norm_momentum: what stays of the moving averages of batch normalisation in each step. "auto" averages over
            some 500 images, and over training images once more before each validation; "keras" is each layer's own,
            0.99 or 0.999, with which a short run is validated on what its averages began as.
    """

    freeze: Literal["none", "backbone"] | LayerNames = "none"
    unfreeze: Unfreeze | None = None
    regularize: tuple[Regularizer, ...] = ()
    batch_norm_momentum: Literal["auto", "keras"] | BatchNormMomentum = "auto"


@final
class Network(AnyNetwork):
    """The spec's backbone without its top, and a head.

    Fields:
        pooling: how the backbone's last feature map becomes a vector.
        dense: sizes of hidden dense layers in the head, with ReLU, each followed by dropout.
        dropout_rate: of the head.
    """

    pooling: Literal["avg", "max", "flatten"] = "avg"
    dense: tuple[int, ...] = ()
    dropout_rate: float = Field(0.2, ge=0, lt=1)


@final
class OwnModel(AnyNetwork):
    """The user's own Keras model instead of backbone and head, functional or Sequential.

    Fields:
        model: `Call("my_code.make_model", ...)`, which survives JSON, or a live `keras.Model`. It ends in logits or in
            the task's activation; it is copied, so a live one keeps its weights.
        features: name of the layer that the backbone ends with; None takes the last feature map that everything goes
            through. `freeze="backbone"` freezes up to there.
    """

    model: Call | Live
    features: str | None = None

    def make(self, num_classes: int) -> Any:
        """The model; a function with an argument `num_classes` that was not declared is told how many there are."""
        if isinstance(self.model, Live):
            return self.model.value
        is_told = self.model.accepts("num_classes") and "num_classes" not in self.model.arguments
        return self.model.make(**({"num_classes": num_classes} if is_told else {}))


def _own_model(value: Any) -> Any:
    """A bare `Call` or `keras.Model` in `Run.network` means `OwnModel` of it."""
    if isinstance(value, (Call, Live)) or any(base.__name__ == "Model" for base in type(value).__mro__):
        return OwnModel(model=value)
    return value


NetworkField = Annotated[AnyNetwork, BeforeValidator(_own_model)]
