"""What a run writes for programs: one line of the log for each epoch, and images for TensorBoard."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator  # of its web page

from model_trainer import Run
from model_trainer.training.metrics_log import MetricsLog
from model_trainer.training.non_chief import NonChiefRunFolder
from model_trainer.training.progress import metric_line
from model_trainer.training.train import train_model

MakeRun = Callable[..., Run]
NUMBER = r"([0-9.eE+-]+)"


@pytest.mark.parametrize("value", [0.1, 1.0, 1 / 3, 1.5e-9, -2.5e12, 0.0])
def test_a_regular_expression_finds_each_metric_by_its_name(value: float) -> None:
    line = metric_line({"epoch": 3.0, "accuracy": 7.0, "val_accuracy": value, "learning_rate": 5.0})
    (number,) = re.findall(f" val_accuracy={NUMBER};", line)
    assert float(number) == pytest.approx(value, rel=1e-5)
    assert re.findall(f" accuracy={NUMBER};", line) == ["7"]


def test_sagemakers_documented_expression_finds_a_metric() -> None:
    # "Train_error=(.*?);" in its "Define Training Metrics".
    assert re.findall("val_loss=(.*?);", metric_line({"epoch": 1.0, "loss": 0.5, "val_loss": 0.25})) == ["0.25"]


def test_separators_in_a_metric_name_are_replaced_by_underscores() -> None:
    line = metric_line({"epoch": 1.0, "precision@1; x=0": 0.5, "größe/val-a.b": 0.25})
    assert line == "[metric] epoch=1 precision@1__x_0=0.5; größe/val-a.b=0.25;"


def test_a_line_begins_with_the_epoch_and_its_values_have_six_digits() -> None:
    line = metric_line({"epoch": 12.0, "loss": 0.123456789, "val_map": float("nan")})
    assert line == "[metric] epoch=12 loss=0.123457; val_map=nan;"


@pytest.mark.usefixtures("short_pipeline", "plain_graphs", "eager_steps")
@pytest.mark.parametrize("is_terminal", [False, True])
def test_the_line_is_always_in_the_log_file_and_on_standard_error_unless_it_is_a_terminal(
    make_run: MakeRun, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, is_terminal: bool
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1" if is_terminal else "0")
    result = train_model(make_run())
    line = metric_line(result.history[0])
    assert (line in capfd.readouterr().err.splitlines()) is not is_terminal
    assert line in (result.path / "logs" / "train.log").read_text()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_tensorboard_shows_the_images_that_were_written(tmp_path: Path, channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 7, channels), np.uint8)
    logs = MetricsLog(tmp_path)
    logs.write_images("augmented", 3, images)
    logs.close()
    reader = EventAccumulator(str(tmp_path))
    reader.Reload()
    assert reader.Tags()["tensors"] == [f"augmented/image/{index}" for index in range(2)]
    for index, pixels in enumerate(images):
        assert reader.SummaryMetadata(f"augmented/image/{index}").plugin_data.plugin_name == "images"
        (event,) = reader.Tensors(f"augmented/image/{index}")
        assert event.step == 3
        width, height, encoded = event.tensor_proto.string_val
        assert (int(width), int(height)) == (7, 5)
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(encoded))).reshape(5, 7, channels), pixels)


def test_only_the_chief_writes_images(tmp_path: Path) -> None:
    with NonChiefRunFolder(tmp_path, {}).logs() as logs:
        logs.write_images("augmented", 0, np.zeros((1, 5, 7, 3), np.uint8))
    assert not list(tmp_path.iterdir())
