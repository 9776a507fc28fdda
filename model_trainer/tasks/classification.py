"""Single-label classification: each image belongs to exactly one class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, final

import numpy as np
from pydantic import Field

from model_trainer.errors import DataError
from model_trainer.metrics.chunks import Progress
from model_trainer.sources.examples import Examples
from model_trainer.sources.label_rows import LabelRows
from model_trainer.sources.labels.kinds import Labels
from model_trainer.tasks.class_weights import by_name, check_at_least_two_classes, check_class_names
from model_trainer.tasks.losses import Activation, CrossEntropy, Loss, make_loss, to_probabilities
from model_trainer.tasks.metrics import Accuracy, Metric
from model_trainer.tasks.task import Factors, Task
from model_trainer.user_code import Call, Live

if TYPE_CHECKING:
    import tensorflow as tf

    from model_trainer.tasks.classification_evaluation import ClassificationEvaluation

__all__ = ["Classification"]


@final
class Classification(Task):
    """Single-label classification: one class for each image.

    Labels may also be probabilities of all classes; metrics then take the most probable class as the true one.

    Fields:
        label_smoothing: fraction of each target that is spread evenly over all classes, 0 to below 1.
        loss: a built-in loss such as `Focal()`, `Call("my_code.loss")`, or any Keras loss, which gets probabilities.
        metrics: the first is the main one. With `MacroRecall()` among them, `model_max_sensitivity.hdf5` is saved too.
        class_weights: None; "balanced", so that each class has the same total weight; or a weight by class name.
        activation: of the saved network's last layer; "none" saves logits, to which `predict` applies softmax.
        outputs: several outputs with a loss and a weight each; all learn the same labels, the first one predicts.

    Example:
        >>> task = Classification(label_smoothing=0.1, class_weights="balanced", metrics=(Accuracy(), TopK(5)))
        >>> task.decode(np.array([0.2, 0.5, 0.3]), classes=("cat", "dog", "eel"), top=2)
        [{'label': 'dog', 'probability': 0.5}, {'label': 'eel', 'probability': 0.3}]
    """

    label_smoothing: float = Field(0.0, ge=0, lt=1)
    loss: Loss | Call | Live = CrossEntropy()
    metrics: tuple[Metric, ...] = Field((Accuracy(),), min_length=1)
    class_weights: Literal["balanced"] | dict[str, float] | None = None
    activation: Literal["softmax", "sigmoid", "none"] = "softmax"

    @property
    def loss_activation(self) -> Activation:
        return "sigmoid" if self.activation == "sigmoid" else "softmax"

    @property
    def head_activation(self) -> Literal["softmax", "sigmoid", "none"]:
        return self.activation

    def probabilities(self, outputs: list[tf.Tensor]) -> tf.Tensor:
        return to_probabilities(outputs[0], self.loss_activation)

    def check(self, examples: Examples) -> None:
        check_at_least_two_classes(examples)
        if examples.label_kind == "tags":
            raise DataError(
                f"{examples.origin} has tags, any number for each image; Classification needs exactly one class. "
                "Use task=MultiLabel()."
            )
        has_no_class = examples.label_rows().most_likely() < 0
        if has_no_class.any():
            name = examples.name(int(has_no_class.argmax()))
            raise DataError(f"{examples.origin}: {name} has no class; Classification needs one for each image.")
        check_class_names(self.class_weights, examples, "task.class_weights")

    def factors(self, examples: Examples) -> Factors:
        ones = Factors.ones(len(examples.classes))
        if self.class_weights is None:
            return ones
        if self.class_weights == "balanced":
            # As in scikit-learn's compute_class_weight: num_examples / (num_classes * count).
            labels = examples.label_rows().most_likely()
            counts = np.bincount(labels, weights=examples.weights, minlength=len(examples.classes))
            balanced = np.divide(counts.sum() / len(counts), counts, out=np.ones(len(counts)), where=counts > 0)
            return ones._replace(class_weights=balanced.astype(np.float32))
        return ones._replace(class_weights=by_name(self.class_weights, examples.classes))

    def targets(self, labels: Any, num_classes: int) -> Any:
        import tensorflow as tf

        return tf.one_hot(labels, num_classes) if labels.dtype == tf.int32 else labels

    def example_weights(self, targets: Any, weights: tf.Tensor, factors: Factors) -> tf.Tensor:
        import tensorflow as tf

        return weights * tf.linalg.matvec(targets, factors.class_weights)

    def losses(self, targets: Any, outputs: list[tf.Tensor], factors: Factors) -> tf.Tensor:
        import tensorflow as tf

        if self.label_smoothing:
            spread = self.label_smoothing / int(targets.shape[-1])
            targets = targets * (1.0 - self.label_smoothing) + spread
        if not self.outputs:
            return make_loss(self.loss)(targets, outputs[0], self.loss_activation)
        return tf.add_n(
            [
                output.weight * make_loss(output.loss or self.loss)(targets, logits, self.loss_activation)
                for output, logits in zip(self.outputs, outputs, strict=True)
            ]
        )

    def majority_baseline(self, examples: Examples) -> tuple[float, str] | None:
        if self.metrics[0].name != "accuracy":
            return None
        labels = examples.labels
        if isinstance(labels, LabelRows):
            labels = labels.most_likely()
        weights = np.bincount(labels, examples.weights, len(examples.classes))
        majority = int(weights.argmax())
        return float(weights[majority] / weights.sum()), examples.classes[majority]

    def decode(
        self,
        probabilities: np.ndarray,
        classes: tuple[str, ...],
        top: int | None = None,
        thresholds: tuple[float, ...] | None = None,
    ) -> list[dict[str, Any]]:
        most_probable = np.argsort(-probabilities, kind="stable")[: 5 if top is None else top]
        return [{"label": classes[index], "probability": float(probabilities[index])} for index in most_probable]

    def evaluate(
        self,
        labels: Labels,
        probabilities: np.ndarray,
        classes: tuple[str, ...],
        thresholds: tuple[float, ...] | None = None,
        num_bad: int = 0,
        progress: Progress | None = None,
    ) -> ClassificationEvaluation:
        from model_trainer.tasks.classification_evaluation import evaluate_classes  # loads scikit-learn

        return evaluate_classes(
            true_classes(labels),
            probabilities,
            classes,
            num_bad,
            is_softmax=self.loss_activation == "softmax",
            progress=progress,
        )


def true_classes(labels: Labels) -> np.ndarray:
    """Returns the class index of each image, int `(num_images,)`; for probabilities that of the most likely class."""
    if isinstance(labels, LabelRows):
        return labels.most_likely()
    return labels if labels.ndim == 1 else labels.argmax(axis=1)
