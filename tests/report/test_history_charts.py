"""The best epoch in the history of a run."""

from __future__ import annotations

from pathlib import Path

from model_trainer.report.history_charts import best_epoch
from model_trainer.report.run_files import RunFiles


def test_the_best_epoch_has_the_best_main_metric_even_if_only_validation_has_it() -> None:
    rows = [
        {"epoch": 1.0, "loss": 1.0, "micro_f1": 0.9, "val_loss": 0.5, "val_map": 0.6, "val_micro_f1": 0.1},
        {"epoch": 2.0, "loss": 0.9, "micro_f1": 0.8, "val_loss": 0.6, "val_map": 0.5, "val_micro_f1": 0.9},
    ]
    assert best_epoch(RunFiles(path=Path("x"), options={}, history=rows)) == ("val_map", 0.6, 1)


def test_of_epochs_with_equal_metrics_the_one_with_the_lower_loss_is_the_best() -> None:
    losses = {1: 0.9, 2: 0.4, 3: 0.4, 4: float("nan")}
    rows = [
        {"epoch": float(epoch), "loss": 1.0 / epoch, "val_loss": loss, "val_accuracy": 0.75}
        for epoch, loss in losses.items()
    ]
    assert best_epoch(RunFiles(path=Path("x"), history=rows)) == ("val_accuracy", 0.75, 2)
