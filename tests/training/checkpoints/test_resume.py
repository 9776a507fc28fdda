from __future__ import annotations

import functools
import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from model_trainer import LAMB, Divergence, Hardware, OwnModel, Run
from model_trainer.errors import ConfigError, DataError, StoppedError, StorageError
from model_trainer.storage.folders import only_process
from model_trainer.training import prepare as prepare_module
from model_trainer.training.checkpoints.store import read_newest, write_checkpoint
from model_trainer.training.resume import check_changes, find_folder
from model_trainer.training.run_folder import RunFolder
from model_trainer.training.signals import end_on_signals
from model_trainer.training.train import Result, train_model

pytestmark = pytest.mark.usefixtures(
    "short_pipeline", "eager_steps"
)  # test_killed.py resumes with the complete pipeline

DeclareRun = MakeRun = Callable[..., Run]


class StopAt(keras.callbacks.Callback):
    """Sends this process a signal at the end of a step, counted over the run."""

    def __init__(self, step: int, number: int) -> None:
        super().__init__()
        self.step, self.number = step, number

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        self.step -= 1
        if self.step == 0:
            os.kill(os.getpid(), self.number)

    def get_state(self) -> dict[str, object]:
        return {}

    def set_state(self, state: dict[str, object]) -> None:
        self.step = -1


@pytest.fixture(scope="module")
def stopped_once(
    short_pipeline: None, declare_run: DeclareRun, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Result]:
    """The result of a run of 2 epochs with 4 steps each, stopped after the sixth step; its folder is only copied."""

    @functools.cache
    def train_once(**changes: object) -> Result:
        output_dir = str(tmp_path_factory.mktemp("stopped"))
        callbacks = (StopAt(6, signal.SIGUSR1),)
        return train_model(declare_run(training__epochs=2, callbacks=callbacks, output_dir=output_dir, **changes))

    return train_once


Stop = Callable[..., tuple[Run, Result]]


@pytest.fixture
def stop(stopped_once: Callable[..., Result], make_run: MakeRun, tmp_path: Path) -> Stop:
    """Gives a test a copy of that folder, and the run that would have left it."""

    def copy(**changes: object) -> tuple[Run, Result]:
        result = stopped_once(**changes)
        shutil.copytree(result.path, tmp_path / "output" / result.path.name)
        run = make_run(training__epochs=2, callbacks=(StopAt(0, signal.SIGUSR1),), **changes)
        return run, replace(result, path=tmp_path / "output" / result.path.name)

    return copy


@pytest.fixture
def stopped(stop: Stop) -> tuple[Run, Result]:
    return stop()


@pytest.fixture(scope="module")
def whole_losses(
    short_pipeline: None, declare_run: DeclareRun, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., list[float]]:
    """The losses of the same run when nothing stops it."""

    @functools.cache
    def train_once(**changes: object) -> list[float]:
        output_dir = str(tmp_path_factory.mktemp("whole"))
        return losses(train_model(declare_run(training__epochs=2, output_dir=output_dir, **changes)))

    return train_once


def losses(result: Result) -> list[float]:
    return [row["loss"] for row in result.history]


def test_a_signal_saves_and_the_run_resumes_from_there(
    stopped: tuple[Run, Result], whole_losses: Callable[..., list[float]]
) -> None:
    run, result = stopped
    assert result.stopped == "SIGUSR1"
    saved = read_newest(result.path / "checkpoints")
    assert saved is not None
    assert (saved.epoch, saved.position, saved.state["finished"]) == (1, 2, False)

    resumed = train_model(run, resume=True)
    assert resumed.path == result.path
    assert "resumed at step 2 of epoch 2" in (result.path / "logs" / "train.log").read_text()
    np.testing.assert_allclose(losses(resumed), whole_losses(), rtol=1e-6)

    again = train_model(run, resume=True)
    assert again.was_finished
    assert losses(again) == losses(resumed)

    longer = train_model(run.changed("training.epochs", 3), resume=True)
    assert [row["epoch"] for row in longer.history] == [1, 2, 3]


@pytest.mark.parametrize("devices", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_another_number_of_devices_resumes_with_the_same_losses(
    stop: Stop, whole_losses: Callable[..., list[float]], devices: int
) -> None:
    run, _ = stop(network__dropout_rate=0.0)
    resumed = train_model(run.changed("hardware.devices", devices), resume=True)
    assert "resumed at step 2 of epoch 2" in (resumed.path / "logs" / "train.log").read_text()
    assert losses(resumed) == pytest.approx(whole_losses(network__dropout_rate=0.0), abs=1e-5)


def test_another_batch_size_resumes_within_the_epoch_if_it_divides_the_images_seen(stopped: tuple[Run, Result]) -> None:
    run, result = stopped
    resumed = train_model(run.changed("training.batch_size", 8), resume_from=result.path)
    log = (result.path / "logs" / "train.log").read_text()
    assert "resumed at step 1 of epoch 2" in log  # 8 images are seen
    assert "training.batch_size was 4 and is 8 from now on." in log
    assert len(resumed.history) == 2


def test_another_batch_size_that_does_not_divide_the_images_seen_restarts_the_epoch(
    stopped: tuple[Run, Result],
) -> None:
    run, result = stopped
    train_model(run.changed("training.batch_size", 5), resume=True)
    log = (result.path / "logs" / "train.log").read_text()
    assert "Epoch 2 is restarted: the 8 images it has seen are not a whole number of batches of 5." in log


def test_an_option_that_is_not_safe_to_change_is_named_with_both_values(stopped: tuple[Run, Result]) -> None:
    run, _ = stopped
    with pytest.raises(ConfigError, match=r"`training.learning_rate` was 0.05 and is 0.1 now"):
        train_model(run.changed("training.learning_rate", 0.1), resume=True)


def test_a_source_that_was_recorded_under_its_former_name_is_not_a_change(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    run = run.changed("train_data", run.train_data.take(8).split(val=0.25)[0])
    options = {"run": run.to_dict()}
    assert options["run"]["train_data"]["source"]["type"] == "Subset"
    options["run"]["train_data"]["source"]["type"] = "Taken"
    (tmp_path / "training_options.json").write_text(json.dumps(options))
    check_changes(run, tmp_path)
    with pytest.raises(ConfigError, match=r"`train_data.source.count` was 8 and is 7 now"):
        check_changes(run.changed("train_data.source.count", 7), tmp_path)


def test_the_refusal_of_a_change_names_the_folder_and_the_options_that_may_change(stopped: tuple[Run, Result]) -> None:
    run, result = stopped
    with pytest.raises(ConfigError) as refused:
        check_changes(run.changed("training.learning_rate", 0.1), result.path)
    message = str(refused.value)
    assert f"the run in {result.path} was started with the former" in message
    assert "repeat the --set options of its first start" in message
    for option, value in {
        "name": "other", "output_dir": "elsewhere", "training.epochs": 9, "training.batch_size": 2,
        "training.accumulation_steps": 2, "training.max_bad_images": 7, "training.max_bad_fraction": 0.5,
        "training.divergence": Divergence(rollbacks=7), "hardware": Hardware(platform="cpu"), "observers": (),
    }.items():  # fmt: skip
        assert option in message.split("Only these")[1]
        check_changes(run.changed(option, value), result.path)


def strip_to_older_version(result: Result, **changes: object) -> None:
    """Removes from the folder what older versions did not write."""
    path = result.path / "training_options.json"
    options = json.loads(path.read_text())
    del options["run"]["network"]["batch_norm_momentum"], options["run"]["training"]["loss_mean"]
    options["run"]["training"]["optimizer"].pop("weight_decay_on")
    path.write_text(json.dumps({**options, **changes}))
    saved = read_newest(result.path / "checkpoints")
    assert saved is not None
    new = [name for name in saved.arrays if name.startswith("batch_norm/") or ("average/" in name and "moving" in name)]
    kept = {name: array for name, array in saved.arrays.items() if name not in new}
    write_checkpoint(result.path / "checkpoints", replace(saved, arrays=kept))


def test_a_run_of_an_older_version_resumes_with_its_settings(stopped: tuple[Run, Result]) -> None:
    run, result = stopped
    strip_to_older_version(result)
    train_model(run, resume=True)
    options = json.loads((result.path / "training_options.json").read_text())["run"]
    assert options["network"]["batch_norm_momentum"] == "keras"
    assert options["training"]["optimizer"]["weight_decay_on"] == "all"
    assert options["training"]["loss_mean"] == "weights"
    longer = train_model(
        run.changed("training.epochs", 3), resume=True
    )  # declared without these settings, which are recorded by now
    assert len(longer.history) == 3


def test_a_checkpoint_of_an_older_version_without_averaged_statistics_resumes(
    make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run(
        training__epochs=2,
        callbacks=(StopAt(6, signal.SIGUSR1),),
        spec__kwargs={"batch_normalization": True},
        training__ema_decay=0.9,
        network__batch_norm_momentum="keras",
    )
    result = train_model(run)
    shutil.copytree(result.path, tmp_path / "copy")
    expected = train_model(run, resume=True).history[-1]
    shutil.rmtree(result.path)
    shutil.copytree(tmp_path / "copy", result.path)
    strip_to_older_version(result)
    resumed = train_model(run.changed("network.batch_norm_momentum", "auto"), resume=True)
    assert resumed.history[-1]["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert resumed.history[-1]["val_loss"] == pytest.approx(expected["val_loss"], rel=0.2)


def test_a_changed_weight_decay_of_lamb_is_logged(make_run: MakeRun) -> None:
    changes = {"training__optimizer": LAMB(weight_decay=0.1), "training__epochs": 2}
    run = make_run(**changes, callbacks=(StopAt(6, signal.SIGUSR1),))
    result = train_model(run)
    strip_to_older_version(result)
    assert len(train_model(run, resume=True).history) == 2
    assert "whose LAMB scaled the weight decay with the update" in (result.path / "logs" / "train.log").read_text()


def test_a_run_stopped_by_commit_3d3d0bb_resumes_with_the_results_of_that_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With batch normalization, class weights, Adam with weight decay and clipped gradients, and early stopping."""
    there = Path(__file__).with_name("run_of_3d3d0bb")
    shutil.copytree(there / "images", tmp_path / "data")
    shutil.copytree(there / "run", tmp_path / "output" / "older-20261126-035427")
    monkeypatch.chdir(tmp_path)  # its paths are relative
    run = Run.load("output/older-20261126-035427/training_options.json")
    result = train_model(run, resume=True)
    assert result.path.name == "older-20261126-035427"
    assert "resumed at step 2 of epoch 2" in (result.path / "logs" / "train.log").read_text()
    expected = json.loads((there / "expected.json").read_text())
    assert len(result.history) == len(expected) == 3
    for mine, theirs in zip(result.history, expected, strict=True):
        for name in theirs.keys() - {"seconds"}:
            assert mine[name] == pytest.approx(theirs[name], rel=1e-4), name


def test_setting_an_option_that_an_older_version_lacked_is_a_change(stopped: tuple[Run, Result]) -> None:
    run, result = stopped
    strip_to_older_version(result)
    with pytest.raises(ConfigError, match=r"`network.batch_norm_momentum` was 'keras' and is 0.5 now"):
        train_model(run.changed("network.batch_norm_momentum", 0.5), resume=True)


def test_a_resumed_run_keeps_its_precision(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(training__epochs=2, callbacks=(StopAt(6, signal.SIGUSR1),), training__precision="auto")
    with monkeypatch.context() as patched:
        patched.setattr(prepare_module, "choose_precision", lambda *arguments: "mixed_bfloat16")
        result = train_model(run)
    resumed = train_model(run, resume=True)
    assert json.loads((result.path / "training_options.json").read_text())["precision_used"] == "mixed_bfloat16"
    assert len(resumed.history) == 2


def test_an_option_missing_in_the_recorded_run_counts_as_its_default(stopped: tuple[Run, Result]) -> None:
    run, result = stopped
    path = result.path / "training_options.json"
    options = json.loads(path.read_text())
    del options["run"]["training"]["divergence"]["spike_factor"], options["run"]["spec"]["interpolation"]
    del options["run"]["task"]["label_smoothing"], options["run"]["hardware"]
    path.write_text(json.dumps(options))
    with pytest.raises(ConfigError, match=r"`task.label_smoothing` was 0.0 and is 0.1 now"):
        train_model(run.changed("task.label_smoothing", 0.1), resume=True)
    assert len(train_model(run, resume=True).history) == 2


def make_nameless() -> keras.Model:
    """A model whose layer names are generated by Keras, so that they depend on the layers built before."""
    images = keras.Input((16, 16, 3))
    features = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(8, 3, activation="relu")(images))
    return keras.Model(images, keras.layers.Dense(3)(features))


@pytest.mark.slow
def test_automatic_names_of_keras_may_differ_when_a_run_resumes(make_run: MakeRun) -> None:
    model, again = make_nameless(), make_nameless()
    assert model.layers[-1].name != again.layers[-1].name
    whole = train_model(make_run(network=OwnModel(model), training__epochs=2, name="whole"))
    run = make_run(network=OwnModel(model), training__epochs=2, callbacks=(StopAt(6, signal.SIGUSR1),))
    first = train_model(run)
    resumed = train_model(run.changed("network", OwnModel(again)), resume=True)
    assert resumed.path == first.path
    np.testing.assert_allclose(losses(resumed), losses(whole), rtol=1e-6)


@pytest.mark.slow
def test_the_file_of_initial_weights_is_not_needed_on_resume(
    stopped: tuple[Run, Result], make_run: MakeRun, tmp_path: Path
) -> None:
    path = tmp_path / "first.hdf5"
    shutil.move(stopped[1].path / "model_max_acc.hdf5", path)
    shutil.rmtree(stopped[1].path)
    run = make_run(weights=str(path), training__epochs=2, callbacks=(StopAt(6, signal.SIGUSR1),))
    train_model(run)
    path.unlink()
    assert len(train_model(run, resume=True).history) == 2


def test_a_stopped_run_has_no_final_model(stopped: tuple[Run, Result]) -> None:
    run, result = stopped
    assert not (result.path / "final_model.hdf5").exists()
    assert (result.path / "model_max_acc.hdf5").is_file()  # of its first epoch
    train_model(run, resume=True)
    assert (result.path / "final_model.hdf5").is_file()


def test_reading_a_folder_in_which_another_process_trains_changes_nothing(stopped: tuple[Run, Result]) -> None:
    run, result = stopped
    (newest,) = (result.path / "checkpoints").glob("epoch-00001-step-0000002")
    newest.rename(newest.with_name(f".replaced-{newest.name}"))  # a save is under way
    before = sorted(path.name for path in (result.path / "checkpoints").iterdir())
    with only_process(result.path / "logs"), pytest.raises(StorageError, match="Another process is training in"):
        train_model(run, resume=True)
    assert sorted(path.name for path in (result.path / "checkpoints").iterdir()) == before
    assert len(train_model(run, resume=True).history) == 2
    assert "resumed at step 2 of epoch 2" in (result.path / "logs" / "train.log").read_text()


def test_other_data_is_refused(stopped: tuple[Run, Result], colors: Path, tmp_path: Path) -> None:
    run, result = stopped
    options = json.loads((result.path / "training_options.json").read_text())
    options["data_fingerprint"]["val"] = "other"
    (result.path / "training_options.json").write_text(json.dumps(options))
    with pytest.raises(DataError, match="The validation data differs from that with which .* was started"):
        train_model(run, resume=True)


def test_a_run_without_a_checkpoint_resumes_at_its_first_step(stopped: tuple[Run, Result]) -> None:
    run, result = stopped
    shutil.rmtree(result.path / "checkpoints")
    resumed = train_model(run, resume=True)
    assert resumed.path == result.path


class StopAtEpochEnd(StopAt):
    """Sends the signal when the metrics of an epoch are known already."""

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        pass

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        if epoch == self.step:
            os.kill(os.getpid(), self.number)


def test_a_signal_while_an_epoch_is_being_finished_does_not_count_it_twice(make_run: MakeRun) -> None:
    run = make_run(training__epochs=2, callbacks=(StopAtEpochEnd(0, signal.SIGTERM),))
    assert len(train_model(run).history) == 1
    resumed = train_model(run, resume=True)
    assert [row["epoch"] for row in resumed.history] == [1, 2]
    assert "resumed at step 0 of epoch 2" in (resumed.path / "logs" / "train.log").read_text()


def test_a_signal_after_the_last_step_lets_the_run_finish(make_run: MakeRun) -> None:
    run = make_run(callbacks=(StopAtEpochEnd(0, signal.SIGTERM),))
    assert train_model(run).stopped == ""
    assert train_model(run, resume=True).was_finished


def test_a_signal_before_the_first_step_ends_with_exit_code_75() -> None:
    with pytest.raises(StoppedError, match="SIGTERM came before the first step"), end_on_signals():
        os.kill(os.getpid(), signal.SIGTERM)
    assert StoppedError.exit_code == 75


@pytest.mark.parametrize("content", ["[]", "{", '{"run": []}'])
def test_an_options_file_that_does_not_describe_a_run_is_named(stopped: tuple[Run, Result], content: str) -> None:
    run, result = stopped
    (result.path / "training_options.json").write_text(content)
    with pytest.raises(DataError, match=r"training_options.json .* Start a new run without --resume"):
        train_model(run, resume=True)


def test_a_run_whose_model_could_not_be_written_writes_it_when_resumed(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    save_model = RunFolder.save_model

    def fail(folder: RunFolder, model: keras.Model, name: str, thresholds: object = None) -> None:
        if name == "final_model":
            raise StorageError("The disk is full.")
        save_model(folder, model, name, thresholds)

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "save_model", fail)
        with pytest.raises(StorageError):
            train_model(run)
    resumed = train_model(run, resume=True)
    assert not resumed.was_finished
    assert len(resumed.history) == 1
    assert (resumed.path / "final_model.hdf5").is_file()
    assert train_model(run, resume=True).was_finished


def test_resume_without_an_earlier_run_starts_a_new_one(make_run: MakeRun) -> None:
    assert train_model(make_run(), resume=True).history


def test_resume_continues_the_newest_run_with_exactly_this_name(make_run: MakeRun, tmp_path: Path) -> None:
    names = ["test-20260101-000000", "test-20260102-000000", "test-20260102-000000-2", "test-20260102-000000-10"]
    for name in [*names, "test-large-20270101-000000", "test-20280101"]:
        (tmp_path / "output" / name).mkdir(parents=True)
        (tmp_path / "output" / name / "training_options.json").write_text("{}")
    assert find_folder(make_run()) == tmp_path / "output" / "test-20260102-000000-10"


def test_a_folder_that_is_not_a_run_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no training_options.json"):
        train_model(make_run(), resume_from=tmp_path)
