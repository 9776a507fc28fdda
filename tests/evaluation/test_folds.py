"""k-fold training: each fold equals a separate training, resuming, and out-of-fold predictions for every image."""

from __future__ import annotations

import contextlib
import csv
import gc
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import accuracy_score

from model_trainer import ImageFolder, Run, load_image, load_model, train_folds
from model_trainer.errors import ConfigError, DataError, StoppedError
from model_trainer.evaluation import folds as folds_module
from model_trainer.evaluation.fold_metrics import FoldMetric
from model_trainer.evaluation.folds import FoldsResult
from model_trainer.evaluation.out_of_fold import FoldPredictions, combine
from model_trainer.evaluation.predictions import NoReadableImage, Predictions
from model_trainer.model_files import container
from model_trainer.sources import Examples
from model_trainer.training import folds as training_folds
from model_trainer.training.folds import data_of, run_of_fold
from model_trainer.training.folds_folder import FoldsFolder
from model_trainer.training.train import train_model

pytestmark = [
    pytest.mark.usefixtures("eagerly"),
    pytest.mark.filterwarnings("ignore:Even though the `tf.config.experimental_run_functions_eagerly`"),
]

FOLDS = 3


class SignalIn(keras.callbacks.Callback):
    """Sends SIGTERM after the first step of the `fold`-th training that uses this callback; 0: never."""

    def __init__(self, fold: int = 0) -> None:
        super().__init__()
        self.fold, self.trainings = fold, 0

    def on_train_begin(self, logs: object = None) -> None:
        self.trainings += 1

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        if self.trainings == self.fold and batch == 0:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def eagerly(short_pipeline: None, plain_graphs: None) -> Iterator[None]:
    """`eager_steps` for the whole module."""
    gc.collect()
    gc.freeze()  # the garbage collection between folds takes half a second if it has to search all objects
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="module")
def run(declare_run: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory) -> Run:
    output = str(tmp_path_factory.mktemp("folds"))
    return declare_run(
        output_dir=output,
        training__deterministic=True,
        training__batch_size=8,  # two steps for each fold
        network__dropout_rate=0.5,
        callbacks=(SignalIn(),),
        observers=(),
    )


@pytest.fixture(scope="module")
def whole(run: Run, eagerly: None) -> FoldsResult:
    return train_folds(run, FOLDS)  # with its reports


@pytest.fixture(scope="module")
def continued(run: Run, whole: FoldsResult) -> list[FoldsResult]:
    """The results of the same run stopped in the middle of the second fold, and of resuming it."""
    interrupted = run.changed("name", "interrupted").changed("callbacks", (SignalIn(2),))
    return [train_folds(interrupted, FOLDS, report=False), train_folds(interrupted, FOLDS, resume=True, report=False)]


def arrays_in(path: Path) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: arrays.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return arrays


def assert_same_models(one: Path, other: Path) -> None:
    for name in ("final_model", "model_max_acc", "model_min_loss"):
        these, those = arrays_in(one / f"{name}.hdf5"), arrays_in(other / f"{name}.hdf5")
        assert these.keys() == those.keys()
        assert len(these) >= 6
        for array in these:
            np.testing.assert_array_equal(these[array], those[array])


def content_of(result: FoldsResult) -> dict:
    return json.loads((result.path / "folds.json").read_text())


def predictions_of(result: FoldsResult) -> list[dict[str, str]]:
    with open(result.path / "evaluation" / "predictions.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_signal_in_the_second_fold_stops_the_training_there(continued: list[FoldsResult]) -> None:
    stopped = continued[0]
    assert stopped.stopped == "SIGTERM"
    assert [fold.stopped for fold in stopped.folds] == ["", "SIGTERM"]


def test_a_resumed_training_is_bitwise_equal_to_an_uninterrupted_one(
    whole: FoldsResult, continued: list[FoldsResult]
) -> None:
    stopped, resumed = continued
    assert resumed.path == stopped.path
    assert [fold.was_finished for fold in resumed.folds] == [True, False, False]
    for one, other in zip(whole.folds, resumed.folds, strict=True):
        assert_same_models(one.path, other.path)
    tables = [np.load(result.path / "evaluation" / "probabilities.npy") for result in (whole, resumed)]
    np.testing.assert_array_equal(*tables)
    assert content_of(whole)["metrics"] == content_of(resumed)["metrics"]


def test_the_second_fold_equals_a_separate_training(whole: FoldsResult, run: Run, tmp_path: Path) -> None:
    alone = train_model(run_of_fold(run, 2, FOLDS, run.training.seed, str(tmp_path)))
    assert_same_models(whole.folds[1].path, alone.path)


def test_each_image_is_predicted_by_the_model_of_the_fold_that_held_it_out(whole: FoldsResult, run: Run) -> None:
    rows = predictions_of(whole)
    probabilities = np.load(whole.path / "evaluation" / "probabilities.npy")
    assert len(rows) == len(probabilities) == 24
    for number, fold in enumerate(whole.folds, 1):
        train, _ = data_of(run)[0].folds(FOLDS, run.training.seed)[number - 1]
        indices = [index for index, row in enumerate(rows) if row["fold"] == str(number)]
        assert not {rows[index]["image"] for index in indices} & {*train.read().names()}
        model = load_model(fold.path).model
        images = np.stack([load_image(rows[index]["image"], run.spec) for index in indices])
        np.testing.assert_allclose(model.predict(images, verbose=0), probabilities[indices], rtol=1e-5, atol=1e-6)


def test_metrics_have_mean_and_spread_over_the_folds(whole: FoldsResult) -> None:
    rows, content = predictions_of(whole), content_of(whole)
    labels = [(row["fold"], row["true_label"], row["predicted_label"]) for row in rows]
    accuracies = []
    for number in ("1", "2", "3"):
        _, true, predictions = zip(*(each for each in labels if each[0] == number), strict=True)
        accuracies.append(accuracy_score(true, predictions))
    accuracy = content["metrics"]["accuracy"]
    assert accuracy["folds"] == pytest.approx(accuracies)
    assert accuracy["mean"] == pytest.approx(np.mean(accuracies))
    assert accuracy["standard_deviation"] == pytest.approx(np.std(accuracies, ddof=1))
    assert accuracy["out_of_fold"] == pytest.approx(
        np.mean([row["true_label"] == row["predicted_label"] for row in rows])
    )
    assert content["main_metric"] == "accuracy"


def test_folds_json_names_the_folder_of_each_fold(whole: FoldsResult) -> None:
    content = content_of(whole)
    assert content["settings"] == {"folds": 3, "seed": 0, "data": "train_data + val_data"}
    assert content["state"] == "finished"
    for fold, result in zip(content["folds"], whole.folds, strict=True):
        assert (fold["state"], fold["folder"], fold["images"]) == ("finished", result.path.name, 8)
        assert fold["metrics"]["accuracy"] == content["metrics"]["accuracy"]["folds"][fold["fold"] - 1]


def test_there_is_a_report_for_each_fold_and_one_for_all(whole: FoldsResult) -> None:
    pages = [path / "report" / "index.html" for path in (whole.path, *(fold.path for fold in whole.folds))]
    assert all("Confusions" in page.read_text() for page in pages)
    assert "Over the 3 folds, accuracy is" in pages[0].read_text()


def test_other_folds_or_another_seed_are_refused_on_resume(whole: FoldsResult, run: Run) -> None:
    with pytest.raises(ConfigError, match="--folds was 3 and is 4 now"):
        train_folds(run, 4, resume=True)
    with pytest.raises(ConfigError, match="The seed of the folds was 0 and is 1 now"):
        train_folds(run, FOLDS, seed=1, resume=True)
    with pytest.raises(ConfigError, match="The divided data was train_data . val_data and is train_data now"):
        train_folds(run.changed("val_data", None), FOLDS, resume=True)


def test_other_data_is_refused_on_resume(
    whole: FoldsResult, run: Run, draw_folder: Callable[..., Path], tmp_path: Path
) -> None:
    other = ImageFolder(draw_folder(tmp_path / "other", 4))
    with pytest.raises(DataError, match="The data differs from that with which .* was started"):
        train_folds(run.changed("val_data", other), FOLDS, resume=True)


def test_other_options_are_refused_on_resume(whole: FoldsResult, run: Run) -> None:
    with pytest.raises(ConfigError, match=r"`training.learning_rate` was 0.05 and is 0.1 now"):
        train_folds(run.changed("training.learning_rate", 0.1), FOLDS, resume=True)


def test_a_run_that_cannot_start_leaves_no_folder(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        train_folds(run.changed_all({"output_dir": str(tmp_path), "training.batch_size": 10_000}), FOLDS)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def copied(whole: FoldsResult, tmp_path: Path) -> Path:
    """A copy of the folder of `whole` that a test may change."""
    return shutil.copytree(whole.path, tmp_path / "copied")


def state_in(folder: Path) -> tuple[str, list[str]]:
    content = json.loads((folder / "folds.json").read_text())
    return content["state"], [fold["state"] for fold in content["folds"]]


def failing_with(error: BaseException) -> Callable[..., object]:
    def fail(*arguments: object, **options: object) -> object:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "raised", "state"),
    [
        (ConfigError("wrong"), ConfigError, "failed"),
        (ZeroDivisionError(), ZeroDivisionError, "failed"),
        (StoppedError("SIGTERM came."), StoppedError, "stopped"),
        (KeyboardInterrupt(), StoppedError, "stopped"),
    ],
)
def test_finished_folds_are_kept_if_resuming_another_one_fails(
    copied: Path, run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, raised: type, state: str
) -> None:
    shutil.rmtree(next(copied.glob("fold-1-*")))
    monkeypatch.setattr(training_folds, "train_model", failing_with(error))
    with pytest.raises(raised) as caught:
        train_folds(run, FOLDS, resume_from=copied)
    assert len(list(copied.glob("fold-*"))) == 2
    assert state_in(copied) == (state, [state, "finished", "finished"])
    assert ("--resume continues" in str(caught.value)) == (raised is StoppedError)


def test_an_interrupt_before_the_first_training_leaves_no_folder(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_folds, "train_model", failing_with(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        train_folds(run.changed("output_dir", str(tmp_path)), FOLDS)
    assert list(tmp_path.iterdir()) == []


def test_sigterm_during_the_evaluation_suggests_to_evaluate_with_resume(
    copied: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*arguments: object) -> object:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal did not end it")

    monkeypatch.setattr(container, "scan_hdf5", killed)
    with pytest.raises(StoppedError, match="All are trained; the same command with --resume evaluates them") as caught:
        train_folds(run, FOLDS, resume_from=copied)
    assert caught.value.exit_code == 75
    assert state_in(copied) == ("stopped", ["finished"] * 3)


def test_a_fold_without_a_readable_image_has_no_metrics_and_no_rows(
    copied: Path, run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    evaluate, fold = folds_module._evaluate_fold, iter(range(FOLDS))

    def all_but_the_second(*arguments: object) -> object:
        if next(fold) == 1:
            raise NoReadableImage("none of its 8 images could be read")
        return evaluate(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(folds_module, "_evaluate_fold", all_but_the_second)
    monkeypatch.setattr(folds_module, "plain_messages", contextlib.nullcontext)  # it hides messages from caplog
    result = train_folds(run, FOLDS, resume_from=copied, report=False)
    first, second, third = result.metrics["accuracy"].folds
    assert np.isnan(second)
    assert result.metrics["accuracy"].mean == pytest.approx((first + third) / 2)
    assert {row["fold"] for row in predictions_of(result)} == {"1", "3"}
    assert [each["images"] for each in content_of(result)["folds"]] == [8, 0, 8]
    assert json.loads((copied / "evaluation" / "evaluation.json").read_text())["data"]["unreadable"] == 8
    assert "Fold 2 has no metrics. none of its 8 images could be read" in caplog.text


def test_validation_data_contained_in_the_training_data_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(run.train_data.path)
    monkeypatch.chdir(folder.parent)
    for val_data in (ImageFolder(f"./{folder.name}"), run.train_data.take(3)):
        with pytest.raises(DataError, match="All images of val_data are in train_data too .*--set val_data=null"):
            train_folds(run.changed("val_data", val_data), FOLDS)


def test_a_launcher_with_several_processes_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folds_module, "find_hosts", lambda *arguments: object())
    with pytest.raises(ConfigError, match="a launcher has started several"):
        train_folds(run, FOLDS)


def test_train_data_alone_is_divided_without_other_val_data(run: Run) -> None:
    assert data_of(run)[1] == "train_data + val_data"
    assert data_of(run.changed("val_data", None)) == (run.train_data, "train_data")
    assert data_of(run.changed("val_data", run.train_data)) == (run.train_data, "train_data")


def test_only_a_folder_with_exactly_the_name_of_the_run_is_resumed(run: Run, tmp_path: Path) -> None:
    named = run.changed_all({"name": "cats", "output_dir": str(tmp_path)})
    assert FoldsFolder.find(named) is None
    folders = [FoldsFolder.make(named.changed("name", name), 2, 0, "train_data", "x", 4) for name in ("cats", "cats-2")]
    assert FoldsFolder.find(named).path == folders[0].path


@pytest.mark.parametrize("text", ["", "[]", '{"version": 1, "settings": {"folds": 2}, "folds": [{}]}'])
def test_a_damaged_folds_json_is_a_clear_error(run: Run, tmp_path: Path, text: str) -> None:
    (tmp_path / "folds.json").write_text(text)
    with pytest.raises(DataError, match="folds.json .*Start again without --resume"):
        FoldsFolder.find(run, tmp_path)


def test_the_folder_of_an_ordinary_run_is_refused(whole: FoldsResult, run: Run) -> None:
    with pytest.raises(DataError, match="has no folds.json; is it the folder of a training with --folds"):
        train_folds(run, FOLDS, resume_from=whole.folds[0].path)


def predicted(rows: list[int], value: float, thresholds: tuple[float, ...] | None) -> FoldPredictions:
    examples = Examples.of_files(["x"] * len(rows), np.zeros(len(rows)), ("a", "b"), "given")
    table = np.array([[row, value] for row in rows], np.float32)
    return FoldPredictions(Predictions(examples, np.arange(len(rows)), table, 0), np.array(rows), thresholds)


def test_predictions_are_combined_in_the_order_of_the_data_without_unreadable_images() -> None:
    examples = Examples.of_files([f"{index}.jpg" for index in range(7)], np.arange(7) % 2, ("a", "b"), "given")
    whole = combine(examples, [predicted([1, 4, 6], 0.1, (0.2, 0.4)), predicted([0, 2, 5], 0.2, (0.4, 0.8))])
    assert whole.predictions.examples.names() == [f"{index}.jpg" for index in (0, 1, 2, 4, 5, 6)]
    assert whole.predictions.rows.tolist() == [0, 1, 2, 4, 5, 6]
    np.testing.assert_array_equal(
        whole.predictions.probabilities,
        np.array([[0, 0.2], [1, 0.1], [2, 0.2], [4, 0.1], [5, 0.2], [6, 0.1]], np.float32),
    )
    assert whole.folds.tolist() == [2, 1, 2, 1, 2, 1]
    assert whole.thresholds == pytest.approx((0.3, 0.6))


def test_a_fold_without_predictions_keeps_its_number() -> None:
    examples = Examples.of_files([f"{index}.jpg" for index in range(6)], np.arange(6) % 2, ("a", "b"), "given")
    whole = combine(examples, [None, predicted([0, 3], 0.1, None), predicted([1], 0.2, None)])
    assert (whole.predictions.rows.tolist(), whole.folds.tolist()) == ([0, 1, 3], [2, 3, 2])
    assert whole.predictions.num_bad == 3


def test_a_metric_that_is_undefined_in_a_fold_is_left_out_of_the_mean() -> None:
    metric = FoldMetric.of([0.5, float("nan"), 0.7], 0.6)
    assert (metric.mean, metric.standard_deviation) == pytest.approx((0.6, np.std([0.5, 0.7], ddof=1)))
    assert metric.to_dict()["folds"] == [0.5, None, 0.7]
    assert FoldMetric.of([0.5], 0.6).to_dict()["standard_deviation"] is None
