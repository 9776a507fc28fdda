from __future__ import annotations

import math

from model_trainer import Accuracy
from model_trainer.training.best_models import BestModels


def row(epoch: int, accuracy: float, loss: float) -> dict[str, float]:
    return {"epoch": float(epoch), "loss": 9.0, "accuracy": 0.0, "val_loss": loss, "val_accuracy": accuracy}


def test_a_tie_is_decided_by_the_lower_loss() -> None:
    best = BestModels((Accuracy(),))
    assert best.improved(row(1, 0.5, 2.0)) == ["model_max_acc", "model_min_loss"]
    assert best.improved(row(2, 0.5, 1.0)) == ["model_max_acc", "model_min_loss"]
    assert best.improved(row(3, 0.5, 1.0)) == []
    assert best.improved(row(4, 0.6, 3.0)) == ["model_max_acc"]
    assert best.improved(row(5, math.nan, math.nan)) == []
    assert best.epochs == {"model_max_acc": 4, "model_min_loss": 2}


def test_a_restored_state_continues_with_the_same_best_values() -> None:
    first, again = BestModels((Accuracy(),)), BestModels((Accuracy(),))
    first.improved(row(1, 0.5, 2.0))
    again.set_state(first.get_state())
    assert again.epochs == first.epochs == BestModels.epochs_of_state(first.get_state())
    assert again.improved(row(2, 0.5, 2.0)) == []


def test_the_state_of_an_older_version_has_values_without_epochs() -> None:
    best = BestModels((Accuracy(),))
    best.set_state({"model_max_acc": -0.5, "model_min_loss": 2.0})
    assert BestModels.epochs_of_state({"model_max_acc": -0.5, "model_min_loss": 2.0}) == {}
    assert best.improved(row(2, 0.5, 1.0)) == ["model_min_loss"]
    assert best.improved(row(3, 0.6, 3.0)) == ["model_max_acc"]
