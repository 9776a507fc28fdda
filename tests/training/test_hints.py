from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from model_trainer import ImageFolder, ModelSpec, Run
from model_trainer.model_files import weights
from model_trainer.sources.examples import Examples
from model_trainer.training import epochs, hints
from model_trainer.training.hints import no_learning_hint, slow_training_hint
from model_trainer.training.train import train_model

pytestmark = pytest.mark.usefixtures("short_pipeline", "eager_steps")

GRAY = ModelSpec.named("mobilenet_v2").changed("target_size", (64, 64, 1))
RUN = Run(spec=ModelSpec.named("vgg19"), train_data=ImageFolder("data/train"))


def examples(*counts: int) -> Examples:
    labels = np.repeat(np.arange(len(counts)), counts)
    names = tuple("abcdefgh"[: len(counts)])
    return Examples.of_files([f"{number}.jpg" for number in range(len(labels))], labels, names, "data/train")


@pytest.mark.parametrize(
    ("changes", "suggests_imagenet"),
    [
        ({"weights": None}, True),
        ({"weights": "auto"}, False),
        ({"weights": None, "spec": GRAY}, False),
    ],
)
def test_imagenets_weights_are_suggested_where_they_exist_and_were_not_tried(
    changes: dict[str, object], suggests_imagenet: bool
) -> None:
    run = RUN.changed_all(changes)
    hint = no_learning_hint(run, [{"val_accuracy": 0.2}], examples(200, 200), examples(28, 27, 20), "random")
    assert ("--set weights=imagenet" in hint) == suggests_imagenet
    assert "weights=FILE" in hint


@pytest.mark.parametrize(("accuracy", "expects_hint"), [(0.373, True), (0.2, True), (0.47, True), (0.60, False)])
def test_a_run_that_ends_no_better_than_chance_gets_a_hint(accuracy: float, expects_hint: bool) -> None:
    history = [{"val_accuracy": 0.1}, {"val_accuracy": accuracy}]
    hint = no_learning_hint(RUN, history, examples(200, 200), examples(28, 27, 20), "random")
    assert bool(hint) == expects_hint
    perfect = no_learning_hint(RUN, [{"val_accuracy": 1.0}], examples(10, 2), examples(10, 2), "random")
    assert perfect == ""  # although two standard deviations more than 10 of 12 are above 1
    if expects_hint:
        assert hint.startswith(f"val_accuracy was {accuracy:.3f} at best; always predicting 'a' gives 0.373.")
        assert ("75 images are too few to tell" in hint) == (accuracy > 28 / 75)
        assert ("has learned nothing useful" in hint) == (accuracy <= 28 / 75)
        assert "model-trainer doctor data/train" in hint
        assert "26 steps are few: --set training.epochs=20" in hint


def test_the_best_epoch_decides_whether_a_run_has_learned() -> None:
    history = [{"val_accuracy": 0.9}, {"val_accuracy": 0.2}]
    assert no_learning_hint(RUN, history, examples(200, 200), examples(28, 27, 20), "random") == ""
    broken = [{"val_accuracy": float("nan")}]
    assert no_learning_hint(RUN, broken, examples(200, 200), examples(28, 27, 20), "random") == ""


def test_a_backbone_frozen_at_random_weights_is_named_first() -> None:
    run = RUN.changed_all({"network.freeze": "backbone", "train_data": RUN.train_data.take(9)})
    hint = no_learning_hint(run, [{"val_accuracy": 0.2}], examples(200, 200), examples(28, 27, 20), "random")
    assert "\n  - the backbone is frozen at random weights and cannot learn: --set network.freeze=none" in hint
    assert "model-trainer doctor data/train" in hint


def test_a_long_run_on_a_cpu_gets_a_hint() -> None:
    assert slow_training_hint(RUN, 1.6, 3000.0) == ""
    hint = slow_training_hint(RUN, 1.6, 9000.0)
    assert hint.startswith("At 1.6 images/s this run takes about 2:30 h on the CPU.")
    for cure in ("network.freeze=backbone", "spec=mobilenet_v2", "training.epochs=1"):
        assert f"--set {cure}" in hint
    assert "--set 'spec.target_size=[112,112,3]'" in hint
    small = RUN.changed_all({"spec": ModelSpec.named("mobilenet_v2", target_size=[96, 96, 3]), "training.epochs": 1})
    hint = slow_training_hint(small.changed("network.freeze", "backbone"), 1.6, 9000.0)
    assert "--set" not in hint


@pytest.mark.parametrize("devices", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_hint_for_a_long_run_is_logged_once(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], devices: int
) -> None:
    monkeypatch.setattr(epochs, "SECONDS_BEFORE_ESTIMATE", -1.0)
    monkeypatch.setattr(hints, "LONG_SECONDS", 0.0)
    train_model(make_run(training__epochs=2, hardware__devices=devices))
    assert capfd.readouterr().err.count("Each of these would help:") == 1


def test_the_fraction_of_the_largest_class_is_logged_with_the_first_validation(
    make_run: Callable[..., Run], capfd: pytest.CaptureFixture[str]
) -> None:
    train_model(make_run(training__epochs=2))
    assert capfd.readouterr().err.count("Always predicting 'blue' would give an accuracy of 0.3333.") == 1


def test_hints_are_in_the_result(make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_why_no_imagenet", lambda *arguments: "there are none")
    random, nothing = train_model(make_run(weights="auto", training__learning_rate=1e-12)).hints
    assert random.startswith("WEIGHTS ARE RANDOM: there are none.")
    assert "always predicting 'blue' gives 0.333" in nothing
    assert train_model(make_run(training__epochs=5, training__learning_rate=0.1)).hints == ()
