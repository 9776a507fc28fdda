"""Multi-label classification: any number of tags for each image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, final

import numpy as np
from pydantic import Field

from model_trainer.errors import ConfigError, DataError
from model_trainer.metrics.chunks import Progress
from model_trainer.sources.examples import Examples
from model_trainer.sources.labels.kinds import Labels
from model_trainer.tasks.class_weights import by_name, check_class_names
from model_trainer.tasks.losses import Activation, CrossEntropy, Loss, make_loss, to_probabilities
from model_trainer.tasks.metrics import Metric
from model_trainer.tasks.multi_label_metrics import MacroF1, MeanAveragePrecision, MicroF1
from model_trainer.tasks.task import BatchPredictions, Factors, Task
from model_trainer.tasks.thresholds import best_thresholds
from model_trainer.user_code import Call, Live

if TYPE_CHECKING:
    import tensorflow as tf

    from model_trainer.tasks.multi_label_evaluation import MultiLabelEvaluation

__all__ = ["MultiLabel"]

Weights = Literal["balanced"] | dict[str, float] | None


@final
class MultiLabel(Task):
    """Multi-label classification: any number of tags for each image.

    The loss of an image is the mean over its known tags; unknown tags are masked in loss and metrics.

    Fields:
        loss: `CrossEntropy()`, which is binary here, `Focal()`, `Asymmetric()`, `Call("my_code.loss")`, or any Keras
            loss, which gets probabilities and supports neither weights nor unknown tags.
        metrics: the first is the main one; those over all predictions, such as mean average precision, are available
            in validation only.
        class_weights: factor of each tag's loss: None; "balanced", so that the images of each tag have the same total
            weight; or a weight by tag name.
        positive_weights: an additional factor where the tag is present: None; "balanced", the ratio of images without
            the tag to images with it; or a weight by tag name.
        thresholds: minimum probability of the tags that `predict` returns: "fit" chooses for each tag the threshold
            with the highest F1 on the validation data (0.5 without validation); a number applies to all tags.

    Example:
        >>> task = MultiLabel(loss=Asymmetric(), metrics=(MeanAveragePrecision(), MicroF1()), thresholds=0.4)
        >>> task.decode(np.array([0.9, 0.1, 0.5]), classes=("blue", "bold", "photo"))
        [{'label': 'blue', 'probability': 0.9}, {'label': 'photo', 'probability': 0.5}]
    """

    label_kind: ClassVar[Literal["single", "tags"]] = "tags"

    loss: Loss | Call | Live = CrossEntropy()
    metrics: tuple[Metric, ...] = Field((MeanAveragePrecision(), MicroF1(), MacroF1()), min_length=1)
    class_weights: Weights = None
    positive_weights: Weights = None
    thresholds: Literal["fit"] | Annotated[float, Field(gt=0, lt=1)] = "fit"

    @property
    def loss_activation(self) -> Activation:
        return "sigmoid"

    @property
    def head_activation(self) -> Literal["softmax", "sigmoid", "none"]:
        return "sigmoid"

    def probabilities(self, outputs: list[tf.Tensor]) -> tf.Tensor:
        return to_probabilities(outputs[0], "sigmoid")

    @property
    def wants_predictions(self) -> bool:
        return bool(self.full_pass_metrics) or self.thresholds == "fit"

    def check(self, examples: Examples) -> None:
        if not examples.classes:
            raise DataError(f"{examples.origin} has no tags.")
        for field in ("class_weights", "positive_weights"):
            check_class_names(getattr(self, field), examples, f"task.{field}")
        if isinstance(self.loss, Loss):
            return
        if np.isnan(examples.label_rows().values).any():
            raise ConfigError(
                "cannot mask the unknown tags in the data; use a built-in loss such as CrossEntropy().", "task.loss"
            )
        if self.class_weights is not None or self.positive_weights is not None:
            raise ConfigError(
                "should be a built-in loss such as CrossEntropy() with class_weights or positive_weights: "
                "they need a value for each tag, not one for each image.",
                "task.loss",
            )

    def factors(self, examples: Examples) -> Factors:
        rows = examples.label_rows()
        num_classes = len(examples.classes)
        is_known = np.isfinite(rows.values)
        weights = examples.weights[rows.row_of_entry()]
        present = np.bincount(rows.classes[is_known], (rows.values * weights)[is_known], num_classes)
        unknown = np.bincount(rows.classes[~is_known], weights[~is_known], num_classes)
        absent = examples.weights.sum() - unknown - present
        return Factors(
            self._resolve(self.class_weights, present.sum() / num_classes, present, examples.classes),
            self._resolve(self.positive_weights, absent, present, examples.classes),
        )

    @staticmethod
    def _resolve(weights: Weights, numerator: Any, present: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
        """Returns float32 `(num_classes,)`: the declared weights; `numerator / present` if they are "balanced"."""
        if weights is None:
            return np.ones(len(classes), np.float32)
        if weights == "balanced":
            # A tag without images keeps a weight of 1.
            return np.divide(numerator, present, out=np.ones(len(classes)), where=present > 0).astype(np.float32)
        return by_name(weights, classes)

    def targets(self, labels: Any, num_classes: int) -> Any:
        import tensorflow as tf

        return tf.one_hot(labels, num_classes) if labels.dtype == tf.int32 else labels

    def example_weights(self, targets: Any, weights: tf.Tensor, factors: Factors) -> tf.Tensor:
        import tensorflow as tf

        return weights * tf.cast(tf.reduce_any(~tf.math.is_nan(targets), axis=-1), tf.float32)

    def losses(self, targets: Any, outputs: list[tf.Tensor], factors: Factors) -> tf.Tensor:
        import tensorflow as tf

        if not self.outputs:
            return self._loss(self.loss, targets, outputs[0], factors)
        return tf.add_n(
            [
                output.weight * self._loss(output.loss or self.loss, targets, logits, factors)
                for output, logits in zip(self.outputs, outputs, strict=True)
            ]
        )

    def _loss(self, loss: Loss | Call | Live, targets: tf.Tensor, logits: tf.Tensor, factors: Factors) -> tf.Tensor:
        import tensorflow as tf

        if not isinstance(loss, Loss):
            return make_loss(loss)(targets, logits, "sigmoid")
        is_known = ~tf.math.is_nan(targets)
        mask = tf.cast(is_known, tf.float32)
        # Before the loss: masking a NaN afterwards still leaves NaN in the gradient.
        targets = tf.where(is_known, targets, 0.0)
        weights = factors.class_weights * (targets * factors.positive_weights + 1.0 - targets)
        terms = loss.of_sigmoid(targets, logits) * weights * mask
        return tf.math.divide_no_nan(tf.reduce_sum(terms, -1), tf.reduce_sum(mask, -1))

    def fit_thresholds(self, predictions: BatchPredictions) -> tuple[float, ...] | None:
        return best_thresholds(*predictions) if self.thresholds == "fit" else None

    def declared_thresholds(self, num_classes: int) -> tuple[float, ...]:
        """Returns the thresholds of the tags that are used if none were fitted."""
        return (0.5 if self.thresholds == "fit" else self.thresholds,) * num_classes

    def decode(
        self,
        probabilities: np.ndarray,
        classes: tuple[str, ...],
        top: int | None = None,
        thresholds: tuple[float, ...] | None = None,
    ) -> list[dict[str, Any]]:
        """Returns the tags that reach their thresholds, possibly none; with `top` the most probable ones instead."""
        order = np.argsort(-probabilities, kind="stable")
        if top is None:
            min_probabilities = np.asarray(thresholds or self.declared_thresholds(len(classes)))
            order = order[probabilities[order] >= min_probabilities[order]]
        return [{"label": classes[index], "probability": float(probabilities[index])} for index in order[:top]]

    def evaluate(
        self,
        labels: Labels,
        probabilities: np.ndarray,
        classes: tuple[str, ...],
        thresholds: tuple[float, ...] | None = None,
        num_bad: int = 0,
        progress: Progress | None = None,
    ) -> MultiLabelEvaluation:
        from model_trainer.tasks.multi_label_evaluation import evaluate_tags  # loads SciPy

        thresholds = thresholds or self.declared_thresholds(len(classes))
        return evaluate_tags(labels, probabilities, classes, thresholds, num_bad, progress=progress)
