"""Tags: any number of labels for an image, each a question of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, final

import numpy as np
from pydantic import Field

from model_trainer.config import Call, Live
from model_trainer.errors import ConfigError, DataError
from model_trainer.sources.examples import Examples
from model_trainer.tasks.class_weights import by_name, check_class_names
from model_trainer.tasks.losses import Activation, CrossEntropy, Loss, make_loss, to_probabilities
from model_trainer.tasks.metrics import Metric
from model_trainer.tasks.multi_label_metrics import MacroF1, MeanAveragePrecision, MicroF1
from model_trainer.tasks.task import BatchPredictions, Factors, Task
from model_trainer.tasks.thresholds import best_thresholds

if TYPE_CHECKING:
    import tensorflow as tf

    from model_trainer.tasks.multi_label_evaluation import MultiLabelEvaluation

__all__ = ["MultiLabel"]

Weights = Literal["balanced"] | dict[str, float] | None


@final
class MultiLabel(Task):
    """Any number of tags for each image. An image's loss is the mean over its known tags; unknown ones count nowhere.

    Fields:
        loss: `CrossEntropy()`, which is the binary one here, `Focal()`, `Asymmetric()`, `Call("my_code.loss")`, or any
            Keras loss object, which is compared with probabilities and takes neither weights nor unknown tags.
        metrics: the first is the main one; those over all predictions, such as mean average precision, are had of
            validation only.
        class_weights: factor of each tag's loss: None; "balanced", so that each tag's images count the same in total;
            or by name.
        positive_weights: besides, factor of the loss where the tag is present: None; "balanced", as many times as it
            is more often absent than present; or by name.
        thresholds: from which probability on `predict` gives a tag: "fit", for each tag the one with the best F1 on
            validation (0.5 without validation); or one for all.
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
            raise DataError(f"{examples.origin} has no tag at all.")
        for field in ("class_weights", "positive_weights"):
            check_class_names(getattr(self, field), examples, f"task.{field}")
        if isinstance(self.loss, Loss):
            return
        if np.isnan(examples.label_rows().values).any():
            raise ConfigError("has no way to leave out the unknown tags that the data has; take ours.", "task.loss")
        if self.class_weights is not None or self.positive_weights is not None:
            raise ConfigError("gives no term for each tag, which weights need; take ours.", "task.loss")

    def factors(self, examples: Examples) -> Factors:
        rows = examples.label_rows()
        num_classes = len(examples.classes)
        known = np.isfinite(rows.values)
        weights = examples.weights[rows.row_of_entry()]
        present = np.bincount(rows.classes[known], (rows.values * weights)[known], num_classes)
        unknown = np.bincount(rows.classes[~known], weights[~known], num_classes)
        absent = examples.weights.sum() - unknown - present
        of_class = self._declared(self.class_weights, present.sum() / num_classes, present, examples.classes)
        of_present = self._declared(self.positive_weights, absent, present, examples.classes)
        return Factors(of_class, of_present)

    @staticmethod
    def _declared(weights: Weights, part: Any, present: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
        if weights is None:
            return np.ones(len(classes), np.float32)
        if weights == "balanced":
            # A tag without any image keeps its 1.
            return np.divide(part, present, out=np.ones(len(classes)), where=present > 0).astype(np.float32)
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
                output.weight * self._loss(output.loss or self.loss, targets, of_output, factors)
                for output, of_output in zip(self.outputs, outputs, strict=True)
            ]
        )

    def _loss(self, loss: Loss | Call | Live, targets: tf.Tensor, logits: tf.Tensor, factors: Factors) -> tf.Tensor:
        import tensorflow as tf

        if not isinstance(loss, Loss):
            return make_loss(loss)(targets, logits, "sigmoid")
        is_known = ~tf.math.is_nan(targets)
        known = tf.cast(is_known, tf.float32)
        # Before the loss, because a NaN that is masked afterwards comes back in the gradient.
        targets = tf.where(is_known, targets, 0.0)
        factor = factors.of_class * (targets * factors.of_present + 1.0 - targets)
        terms = loss.of_sigmoid(targets, logits) * factor * known
        return tf.math.divide_no_nan(tf.reduce_sum(terms, -1), tf.reduce_sum(known, -1))

    def fit_thresholds(self, predictions: BatchPredictions) -> tuple[float, ...] | None:
        return best_thresholds(*predictions) if self.thresholds == "fit" else None

    def declared_thresholds(self, num_classes: int) -> tuple[float, ...]:
        """What holds where none were fitted."""
        return (0.5 if self.thresholds == "fit" else self.thresholds,) * num_classes

    def decode(
        self,
        probabilities: np.ndarray,
        classes: tuple[str, ...],
        top: int | None = None,
        thresholds: tuple[float, ...] | None = None,
    ) -> list[dict[str, Any]]:
        """The tags from their thresholds on, none perhaps; with `top` so many, whatever the thresholds say."""
        best = np.argsort(-probabilities, kind="stable")
        if top is None:
            least = np.asarray(thresholds or self.declared_thresholds(len(classes)))
            best = best[probabilities[best] >= least[best]]
        return [{"label": classes[index], "probability": float(probabilities[index])} for index in best[:top]]

    def evaluate(
        self,
        targets: np.ndarray,
        probabilities: np.ndarray,
        classes: tuple[str, ...],
        thresholds: tuple[float, ...] | None = None,
        num_bad: int = 0,
    ) -> MultiLabelEvaluation:
        from model_trainer.tasks.multi_label_evaluation import evaluate_tags  # loads scikit-learn

        least = thresholds or self.declared_thresholds(len(classes))
        return evaluate_tags(targets, probabilities, classes, least, num_bad)
