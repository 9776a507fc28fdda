"""The examples of docs/extending.md, verbatim, in runs."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from rich.console import Console

from model_trainer import Hardware, Run, evaluate, load_model, predict
from model_trainer.cli.tables import print_predictions
from model_trainer.errors import ConfigError
from model_trainer.pipeline.augment import move_points
from model_trainer.storage import files
from model_trainer.tasks.head import make_head
from model_trainer.training.train import train_model

pytestmark = pytest.mark.usefixtures("short_pipeline", "plain_graphs", "eager_steps")
compiled = pytest.mark.usefixtures("compiled_steps")

MakeRun = Callable[..., Run]

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


@pytest.fixture(scope="module")
def names(session_of: Callable[[Path], Any]) -> dict[str, Any]:
    """The names that the blocks of the page define, and two further tasks derived from its `Rating`."""
    defined: dict[str, Any] = session_of(PAGE).run_to()
    return defined | {"Pairs": _pairs(defined["Rating"]), "TwoOutputs": _two_outputs(defined["Rating"])}


def _pairs(rating: Any) -> Any:
    class Pairs(rating):
        """Learns the differences between all pairs of ratings in a batch."""

        needs_whole_batch = True

        def loss_sum(self, outputs: Any, encoded: Any, factors: Any) -> Any:
            ratings, right = outputs[0][:, 0], encoded.targets
            differences = (ratings[:, None] - ratings) - (right[:, None] - right)
            return tf.reduce_sum(tf.reduce_mean(tf.square(differences), 1) * encoded.loss_weights)

    return Pairs


def _two_outputs(rating: Any) -> Any:
    class TwoOutputs(rating):
        """Predicts the rating as the sum of two outputs."""

        def head(self, features: Any, options: Any, num_classes: int) -> Any:
            return make_head(features, options, ("one", "two"), 1)

        def probabilities(self, outputs: Any) -> Any:
            return outputs[0] + outputs[1]

        def losses(self, targets: Any, outputs: Any, factors: Any) -> Any:
            return tf.abs(targets - self.probabilities(outputs)[:, 0])

    return TwoOutputs


@pytest.fixture(scope="module")
def usual(
    short_pipeline: None, plain_graphs: None, declare_run: MakeRun, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, float]:
    """The metrics of the same run without any extension."""
    return train_model(declare_run(output_dir=str(tmp_path_factory.mktemp("usual")))).history[0]


@compiled
def test_the_example_of_a_loss_trains(names: dict[str, Any], make_run: MakeRun, usual: dict[str, float]) -> None:
    run = make_run(task__loss=names["Poly"](epsilon=0.0))
    assert train_model(run).history[0]["loss"] == pytest.approx(usual["loss"], abs=1e-5)
    other = train_model(run.changed("task.loss.epsilon", 2.0)).history[0]["loss"]
    assert other > usual["loss"]
    assert run.changed("task.loss", "poly") == run.changed("task.loss.epsilon", 1.0)


def test_the_example_of_a_source_reads_the_same_images(
    names: dict[str, Any], make_run: MakeRun, usual: dict[str, float], colors: Path, tmp_path: Path
) -> None:
    for file in (colors / "train").glob("*/*.png"):
        Image.open(file).save(tmp_path / f"{file.parent.name}_{file.name}")
    run = make_run(train_data=names["FilesByName"](path=str(tmp_path)))
    assert train_model(run).history[0]["val_loss"] == pytest.approx(usual["val_loss"], abs=1e-5)


def test_the_example_of_an_augmentation_changes_the_loss(
    names: dict[str, Any], make_run: MakeRun, usual: dict[str, float]
) -> None:
    losses = [
        train_model(make_run(augment=(names["RandomNegative"](probability=probability),))).history[0]["loss"]
        for probability in (0.0, 1.0)
    ]
    assert losses[0] == pytest.approx(usual["loss"], abs=1e-5)
    assert losses[0] != losses[1]


def test_the_example_of_a_geometric_augmentation_moves_points_with_the_pixels(names: dict[str, Any]) -> None:
    stretch, line = names["RandomStretch"](factor=0.5), np.zeros((4, 41, 1), np.uint8)
    line[:, 27] = 255
    for number in range(5):
        seed = tf.constant([0, number])
        light = stretch.apply(tf.constant(line), seed).numpy()[0, :, 0].astype(float)
        x, y = move_points(tf.constant([[27.5, 1.0]]), stretch.transform(4.0, 41.0, seed)).numpy()[0]
        assert x == pytest.approx((light * (np.arange(41) + 0.5)).sum() / light.sum(), abs=0.5)
        assert abs(x - 27.5) > 0.5
        assert y == 1


@compiled
def test_the_example_of_an_observer_logs_its_values(names: dict[str, Any], make_run: MakeRun) -> None:
    result = train_model(make_run(observers=(names["LargestUpdate"](every=2),)))
    lines = map(json.loads, (result.path / "logs" / "metrics.jsonl").read_text().splitlines())
    changes = [line["largest_update/change"] for line in lines if line["kind"] == "observer"]
    assert len(changes) == 2
    assert 0 < min(changes) <= max(changes) < 1


def test_the_example_of_a_storage_holds_a_run_that_resumes(
    names: dict[str, Any], make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(files._MOUNTED, "team", names["Team"](str(tmp_path)))
    run = make_run(output_dir="team://output")
    assert str(train_model(run).path).startswith("team://output/test-")
    train_model(run.changed("training.epochs", 2), resume=True)
    (folder,) = (tmp_path / "output").iterdir()
    assert (folder / "history.csv").read_text().count("\n") == 3
    assert (folder / "final_model.hdf5").is_file()


@pytest.mark.usefixtures("whole_pipeline", "compiled_steps")
def test_the_example_of_a_task_trains_evaluates_and_predicts(
    names: dict[str, Any], make_run: MakeRun, colors: Path
) -> None:
    run = make_run(task=names["Rating"](), training__epochs=8, training__learning_rate=0.02)
    result = train_model(run)
    assert result.history[-1]["loss"] < 0.5 * result.history[0]["loss"]
    assert list(result.history[0])[:5] == ["epoch", "loss", "nearest", "val_loss", "val_nearest"]
    assert (result.path / "model_max_acc.hdf5").is_file()
    plain = keras.models.load_model(result.path / "final_model.hdf5", compile=False)
    assert plain.output_shape == (None, 1)
    distance = evaluate(result.path / "final_model.hdf5", colors / "val").distance
    assert distance == pytest.approx(result.history[-1]["val_loss"], abs=1e-4)
    image = next((colors / "val" / "red").iterdir())
    (prediction,) = predict(result.path / "final_model.hdf5", [image])
    (rated,) = prediction["predictions"]
    assert load_model(result.path).task == names["Rating"]()
    assert rated["label"] == ("blue", "green", "red")[min(2, max(0, round(rated["rating"])))]
    output = io.StringIO()
    print_predictions([prediction], Console(file=output), Console(file=output))
    assert f"{rated['label']} {rated['rating']:.3f}" in output.getvalue()
    assert train_model(run, resume=True).was_finished


@pytest.mark.slow
def test_the_example_of_a_task_has_the_same_loss_on_two_devices(names: dict[str, Any], make_run: MakeRun) -> None:
    run = make_run(task=names["Rating"](), network__dropout_rate=0.0)
    losses = [
        train_model(run.changed("hardware", Hardware(platform="cpu", devices=devices))).history[0]["loss"]
        for devices in (1, 2)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hardware": Hardware(platform="cpu", devices=2)}, r"`hardware.devices` is 2 here, but Pairs compares"),
        ({"training__accumulation_steps": 2}, r"`training.accumulation_steps` is 2, but Pairs compares"),
    ],
)
def test_a_loss_over_the_whole_batch_is_refused_where_the_batch_is_divided(
    names: dict[str, Any], make_run: MakeRun, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train_model(make_run(task=names["Pairs"](), **changes))


def test_a_loss_over_the_whole_batch_trains_on_one_device(names: dict[str, Any], make_run: MakeRun) -> None:
    history = train_model(make_run(task=names["Pairs"](), training__epochs=3)).history
    assert history[-1]["loss"] < history[0]["loss"]


def test_a_head_with_unnamed_outputs_is_refused(names: dict[str, Any], make_run: MakeRun) -> None:
    with pytest.raises(
        ConfigError, match=r"`task.outputs` should name each output .*head\(\) returns 2, none are named"
    ):
        train_model(make_run(task=names["TwoOutputs"]()))


def test_a_task_with_two_outputs_predicts_from_both(names: dict[str, Any], make_run: MakeRun, colors: Path) -> None:
    result = train_model(make_run(task=names["TwoOutputs"](outputs=("one", "two"))))
    distance = evaluate(result.path / "final_model.hdf5", colors / "val").distance
    assert distance == pytest.approx(result.history[-1]["val_loss"], abs=1e-4)
