"""The end of a run: evaluation and report, whose failure does not fail the training."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from rich.console import Console

from model_trainer import ImageFolder, ModelSpec, MultiLabel, Run, api, evaluate, load_model
from model_trainer.errors import ConfigError, ModelFileError
from model_trainer.model_files.temperature import read_temperature, write_temperature
from model_trainer.report import after_training
from model_trainer.report.after_training import announce_report, report_run
from model_trainer.training.run_folder import RunFolder
from model_trainer.training.train import Result, train_model

pytestmark = pytest.mark.usefixtures("short_pipeline", "plain_graphs")

MakeRun = Callable[..., Run]
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def trained(declare_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Result]:
    run = declare_run(output_dir=str(tmp_path_factory.mktemp("output")), augment=["RandomFlip"])
    result = train_model(run)
    report_run(result, run, QUIET)
    return run, result


def evaluation_of(path: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((path / "evaluation" / "evaluation.json").read_text())
    return content


def test_a_run_is_evaluated_with_its_best_model(trained: tuple[Run, Result]) -> None:
    _, result = trained
    content = evaluation_of(result.path)
    assert content["model"] == "model_max_acc.hdf5"
    assert content["data"]["split"] == "validation"
    assert content["data"]["images"] == 9
    best = max(row["val_accuracy"] for row in result.history)
    assert content["metrics"]["accuracy"]["value"] == pytest.approx(best)


def test_a_report_is_written_at_the_end_of_a_run(trained: tuple[Run, Result]) -> None:
    _, result = trained
    assert (result.path / "report" / "index.html").stat().st_size > 10_000


def test_the_fitted_temperature_is_stored_with_the_model(trained: tuple[Run, Result]) -> None:
    _, result = trained
    fitted = evaluation_of(result.path)["calibration"]["temperature"]
    assert load_model(result.path).temperature == fitted
    assert read_temperature(result.path / "model_min_loss.hdf5") is None


def test_the_report_has_class_counts_and_augmented_examples(trained: tuple[Run, Result]) -> None:
    _, result = trained
    content = json.loads((result.path / "report" / "data.json").read_text())
    assert content["train"]["counts"] == {"blue": 5, "green": 5, "red": 5}
    assert content["val"]["images"] == 9
    assert len(content["examples"]) == 8
    for example in content["examples"]:
        assert len(example["augmented"]) == 3
        assert all((result.path / "report" / file).is_file() for file in [example["original"], *example["augmented"]])


def test_galleries_have_thumbnails_and_attribution_maps(trained: tuple[Run, Result]) -> None:
    _, result = trained
    images = [image for gallery in evaluation_of(result.path)["galleries"] for image in gallery["images"]]
    assert images
    for image in images:
        assert (result.path / "evaluation" / image["file"]).is_file()
        assert (result.path / "evaluation" / image["map"]).is_file()


def test_a_run_without_validation_data_is_evaluated_on_its_training_data(make_run: MakeRun) -> None:
    run = make_run(val_data=None)
    result = train_model(run)
    report_run(result, run, QUIET)
    content = evaluation_of(result.path)
    assert content["data"]["split"] == "training"
    assert "metrics on its training data" in content["data"]["notes"][0]
    assert load_model(result.path).temperature is None  # fitted on training data it would say nothing


def test_a_failed_evaluation_or_report_is_only_a_warning(
    trained: tuple[Run, Result], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run, result = trained
    for error in (OSError("disk on fire"), KeyboardInterrupt()):

        def fail(*arguments: object, error: BaseException = error, **options: object) -> None:
            raise error

        monkeypatch.setattr(after_training, "evaluate_and_record", fail)
        monkeypatch.setattr(after_training, "write_report", fail)
        report_run(result, run, QUIET)
    assert "could not be evaluated: disk on fire. Try again: model-trainer evaluate" in caplog.text
    assert "Interrupted: the run could not be described in a report. Do it later: model-trainer report" in caplog.text


def test_a_run_that_was_stopped_is_not_evaluated(trained: tuple[Run, Result], monkeypatch: pytest.MonkeyPatch) -> None:
    run, result = trained

    def fail(*arguments: object, **options: object) -> None:
        raise AssertionError

    monkeypatch.setattr(after_training, "evaluate_and_record", fail)
    report_run(dataclasses.replace(result, stopped="SIGTERM"), run, QUIET)


def test_a_finished_run_is_evaluated_once(trained: tuple[Run, Result], monkeypatch: pytest.MonkeyPatch) -> None:
    run, result = trained
    again = train_model(run, resume_from=result.path)
    assert again.was_finished
    before = (result.path / "evaluation" / "evaluation.json").stat().st_mtime_ns
    report_run(again, run, QUIET)
    assert (result.path / "evaluation" / "evaluation.json").stat().st_mtime_ns == before


class RunEndRecorder(keras.callbacks.Callback):
    """Records the metrics that it gets at the end of a run, and whether the report exists by then."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[tuple[dict[str, Any], bool]] = []

    def on_run_end(self, folder: Path, metrics: dict[str, Any]) -> None:
        self.records.append((metrics, (folder / "report" / "index.html").exists()))


def test_on_run_end_gets_the_metrics_of_the_evaluation(trained: tuple[Run, Result]) -> None:
    callback = RunEndRecorder()
    announce_report(dataclasses.replace(trained[1], _callbacks=[callback]))
    assert callback.records == [(evaluation_of(trained[1].path)["metrics"], True)]


@pytest.mark.parametrize("error", [None, KeyboardInterrupt()])
def test_on_run_end_is_called_after_the_report_even_if_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException | None
) -> None:
    callback = RunEndRecorder()

    def train_nothing(*arguments: object, report_follows: bool) -> Result:
        assert report_follows
        return Result(tmp_path, [], {}, _callbacks=[callback])

    def write_page(*arguments: object) -> None:
        if error is not None:
            raise error
        (tmp_path / "report").mkdir()
        (tmp_path / "report" / "index.html").touch()

    monkeypatch.setattr(api, "train_model", train_nothing)
    monkeypatch.setattr(api, "report_run", write_page)
    with contextlib.nullcontext() if error is None else pytest.raises(KeyboardInterrupt):
        api.train(Run(spec=ModelSpec.named("vgg19"), train_data=ImageFolder("data/train")))
    assert callback.records == [({}, error is None)]


def test_calibration_divides_the_logits_by_the_temperature(trained: tuple[Run, Result]) -> None:
    model = dataclasses.replace(load_model(trained[1].path), temperature=2.0)
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)).astype(np.uint8)
    roots = np.sqrt(model.probabilities(images))
    np.testing.assert_allclose(model.calibrated().probabilities(images), roots / roots.sum(1, keepdims=True), rtol=1e-5)


def test_a_model_with_sigmoid_outputs_cannot_be_calibrated(trained: tuple[Run, Result]) -> None:
    model = dataclasses.replace(load_model(trained[1].path), task=MultiLabel(), thresholds=(0.2, 0.5, 0.9))
    with pytest.raises(ConfigError, match="has a sigmoid for each class, so its probabilities cannot be calibrated"):
        model.calibrated()


def test_a_calibrated_model_is_not_calibrated_again(trained: tuple[Run, Result], tmp_path: Path) -> None:
    _, result = trained
    before = read_temperature(result.path / "model_max_acc.hdf5")
    model = load_model(result.path).calibrated()
    assert model.calibrated() is model
    evaluate(model, output=tmp_path / "calibrated")
    assert json.loads((tmp_path / "calibrated" / "evaluation.json").read_text())["settings"]["calibrated"] is True
    assert read_temperature(result.path / "model_max_acc.hdf5") == before


def test_each_model_file_has_its_own_temperature(trained: tuple[Run, Result], tmp_path: Path) -> None:
    _, result = trained
    before = read_temperature(result.path / "model_max_acc.hdf5")
    write_temperature(result.path / "final_model.hdf5", 3.0)
    assert read_temperature(result.path / "model_max_acc.hdf5") == before
    write_temperature(result.path / "final_model.hdf5", None)
    assert read_temperature(result.path / "final_model.hdf5") is None


@pytest.mark.parametrize("temperature", ["hot", 0, -1, True, 1e400, [1]])
def test_an_invalid_temperature_is_refused(tmp_path: Path, temperature: object) -> None:
    calibration = {"model.hdf5": {"temperature": temperature}}
    text = json.dumps({"calibration": calibration}).replace("Infinity", "1e400")
    (tmp_path / "model_spec.json").write_text(text)
    with pytest.raises(ModelFileError, match="temperature should be a number above 0|too large"):
        read_temperature(tmp_path / "model.hdf5")


def test_new_weights_remove_the_evaluation_and_temperature_of_the_old_ones(
    trained: tuple[Run, Result], tmp_path: Path
) -> None:
    path = tmp_path / "copy"
    shutil.copytree(trained[1].path, path)
    write_temperature(path / "model_max_acc.hdf5", None)
    folder = RunFolder.reopen(path, json.loads((path / "model_spec.json").read_text()))
    write_temperature(path / "model_max_acc.hdf5", 2.0)
    model = load_model(path).model
    folder.save_model(model, "model_min_loss")
    assert (path / "evaluation" / "evaluation.json").exists()
    assert read_temperature(path / "model_max_acc.hdf5") == 2.0
    folder.save_model(model, "model_max_acc")
    assert not (path / "evaluation" / "evaluation.json").exists()
    assert read_temperature(path / "model_max_acc.hdf5") is None


def test_files_of_the_user_are_not_overwritten(trained: tuple[Run, Result], tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "000001.jpg").write_bytes(b"mine")
    with pytest.raises(ConfigError, match="has images already, and no evaluation.json beside it"):
        evaluate(trained[1].path, output=tmp_path)
    assert (tmp_path / "images" / "000001.jpg").read_bytes() == b"mine"
