"""Runs that an experiment tracker records: calls by the loop, a local MLflow server, Weights & Biases offline."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path, PurePath
from typing import Any, final

import keras
import pytest

import model_trainer
from model_trainer import Call, MLflow, Run, WeightsAndBiases
from model_trainer.errors import DivergedError, StorageError
from model_trainer.report.runs import list_runs
from model_trainer.training.keras_callbacks import announce_run_end
from model_trainer.training.run_folder import RunFolder
from model_trainer.training.train import end_run, train_model

in_memory = pytest.mark.usefixtures("short_pipeline", "plain_graphs", "eager_steps")
needs_mlflow = pytest.mark.skipif(
    find_spec("mlflow") is None or find_spec("sqlalchemy") is None,
    reason="the server of MLflow is not installed: .venv/bin/pip install mlflow",
)
needs_wandb = pytest.mark.skipif(
    find_spec("wandb") is None, reason="not installed: .venv/bin/pip install -e '.[wandb]'"
)

MakeRun = Callable[..., Run]


@final
class Noted(keras.callbacks.Callback):
    """Records the calls of the training loop and the epochs; raises an error in the first epoch if `fails`."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[object] = []
        self.fails = False

    def get_state(self) -> dict[str, Any]:
        return {"run_id": "abc"}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.notes.append(state["run_id"])

    def set_run(self, run: Run, folder: PurePath) -> None:
        self.notes.append((run.name, folder.name))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.notes.append(epoch)
        if self.fails:
            raise DivergedError("too bad")

    def on_train_failed(self) -> None:
        self.notes.append("failed")

    def on_run_end(self, folder: PurePath, metrics: Mapping[str, Any]) -> None:
        self.notes.append(sorted(path.name for path in Path(folder).glob("final_model*")))


class Clumsy(keras.callbacks.Callback):
    """Raises an error in hooks that Keras does not know."""

    def set_run(self, run: Run, folder: PurePath) -> None:
        raise DivergedError("the first error")

    def on_train_failed(self) -> None:
        raise RuntimeError("the second error")

    def on_run_end(self, folder: PurePath, metrics: Mapping[str, Any]) -> None:
        raise RuntimeError("too late")


class WithoutHooks(keras.callbacks.Callback):
    """Has attributes with the names of these hooks that are not methods."""

    set_run = on_train_failed = on_run_end = None


@in_memory
def test_a_callback_gets_run_and_folder_before_the_first_epoch_and_after_its_state(make_run: MakeRun) -> None:
    callback = Noted()
    run = make_run(callbacks=(callback,))
    path = train_model(run).path
    assert callback.notes[:2] == [("test", path.name), 0]
    callback.notes.clear()
    train_model(run.changed("training.epochs", 2), resume=True)
    assert callback.notes[:3] == ["abc", ("test", path.name), 1]


@in_memory
def test_on_run_end_is_called_after_the_final_model_is_written(make_run: MakeRun) -> None:
    callback = Noted()
    train_model(make_run(callbacks=(WithoutHooks(), callback)))
    assert callback.notes[2:] == [["final_model.hdf5"]]


@in_memory
def test_a_caller_that_writes_a_report_calls_on_run_end_itself(make_run: MakeRun) -> None:
    callback = Noted()
    result = train_model(make_run(callbacks=(callback,)), report_follows=True)
    assert len(callback.notes) == 2
    end_run(result, {})
    end_run(result, {})
    assert callback.notes[2:] == [["final_model.hdf5"]]


@in_memory
def test_on_train_failed_is_called_if_the_final_model_cannot_be_written(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: RunFolder, model: keras.Model, name: str, *rest: object) -> None:
        if name == "final_model":
            raise StorageError("the disk is full")

    monkeypatch.setattr(RunFolder, "save_model", fail)
    callback = Noted()
    with pytest.raises(StorageError):
        train_model(make_run(callbacks=(callback,)))
    assert callback.notes[2:] == ["failed"]


@in_memory
def test_an_error_in_on_train_failed_neither_hides_the_first_error_nor_skips_other_callbacks(
    make_run: MakeRun, capfd: pytest.CaptureFixture[str]
) -> None:
    opened = Noted()
    with pytest.raises(DivergedError, match="the first error"):
        train_model(make_run(callbacks=(Clumsy(), opened)))
    assert opened.notes == ["failed"]
    with pytest.raises(DivergedError, match="the first error"):
        train_model(make_run(callbacks=(opened, Clumsy())))
    assert opened.notes[2:] == ["failed"]
    assert "on_train_failed of the callback Clumsy raised RuntimeError: the second error" in capfd.readouterr().err


def test_an_error_in_on_run_end_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    last = Noted()
    announce_run_end([Clumsy(), last], tmp_path, {})
    assert last.notes == [[]]
    assert "on_run_end of the callback Clumsy raised RuntimeError: too late" in caplog.text


@in_memory
def test_a_failure_reaches_callbacks_the_log_file_and_the_list_of_runs(make_run: MakeRun) -> None:
    callback = Noted()
    callback.fails = True
    with pytest.raises(DivergedError):
        train_model(run := make_run(callbacks=(callback,)))
    (_, folder), *rest = callback.notes
    assert rest == [0, "failed"]
    log = Path(run.output_dir) / folder / "logs" / "train.log"
    assert log.read_text().endswith(" ERROR too bad\n")
    assert [each.state for each in list_runs(run.output_dir)] == ["failed"]


def train_in_a_process(run: Run, folder: Path, *arguments: str, **environment: str) -> str:
    """Trains as a user does, and returns what the process wrote to standard error."""
    path = folder / "run.json"
    path.write_text(json.dumps({"run": run.to_dict()}))
    done = subprocess.run(
        [sys.executable, "-m", "model_trainer", "train", str(path), *arguments],
        env={**os.environ, "PYTHONPATH": str(Path(model_trainer.__file__).parents[1]), **environment},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("epoch  "), done.stdout  # the tracker printed nothing before the table
    return done.stderr


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def mlflow_server(tmp_path: Path) -> Iterator[str]:
    """The address of a tracking server with a database and artifacts of its own."""
    address = f"http://127.0.0.1:{(port := free_port())}"
    options = {"host": "127.0.0.1", "port": str(port), "workers": "1", "backend-store-uri": f"sqlite:///{tmp_path}/db"}
    options["artifacts-destination"] = str(tmp_path / "artifacts")
    with subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *(f"--{name}={value}" for name, value in options.items())],
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as server:
        assert server.stdout is not None
        assert any("startup complete" in line for line in server.stdout), "the server ended"
        reader = threading.Thread(target=server.stdout.read)  # so that its pipe never fills
        reader.start()
        yield address
        os.killpg(server.pid, signal.SIGKILL)
        reader.join()


def ask(address: str, path: str, question: object = None) -> Any:
    """The answer of MLflow's REST interface, without its client."""
    body = None if question is None else json.dumps(question).encode()
    request = urllib.request.Request(f"{address}/api/2.0/mlflow/{path}", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


@pytest.mark.slow
@needs_mlflow
def test_mlflow_records_a_resumed_run_as_one_run_with_settings_epochs_and_files(
    make_run: MakeRun, tmp_path: Path, mlflow_server: str
) -> None:
    odd_name = Call("keras.callbacks.LambdaCallback", weights={"Häuser (alt)?": 2.0})
    run = make_run(callbacks=(MLflow(mlflow_server, experiment="pets"), odd_name), training__epochs=1)
    first = train_in_a_process(run, tmp_path, "--trust")
    assert f"MLflow: {mlflow_server}/#/experiments/1/runs/" in first
    (stored,) = (tmp_path / "artifacts").rglob("model_spec.json")
    assert "calibration" in json.loads(stored.read_text())  # the temperature, which the evaluation has fitted
    train_in_a_process(run, tmp_path, "--trust", "--resume", "--set", "training.epochs=3")
    (recorded,) = ask(mlflow_server, "runs/search", {"experiment_ids": ["1"]})["runs"]
    (folder,) = Path(run.output_dir).iterdir()
    run_id, info = recorded["info"]["run_id"], recorded["info"]
    assert (info["status"], info["run_name"]) == ("FINISHED", folder.name)
    params = {each["key"]: each["value"] for each in recorded["data"]["params"]}
    assert params["training.epochs"] == "1"
    assert params["versions.keras"] == keras.__version__
    assert params["spec.target_size"] == "[16, 16, 3]"
    assert params["callbacks.1.weights.H_user _alt__"] == "2.0"
    assert "training.seed" not in params
    tags = {each["key"]: each["value"] for each in recorded["data"]["tags"]}
    assert (tags["output_dir"], tags["training.epochs"]) == (str(folder), "3")
    history = ask(mlflow_server, f"metrics/get-history?run_id={run_id}&metric_key=val_loss")["metrics"]
    losses = [float(line.split(",")[3]) for line in (folder / "history.csv").read_text().splitlines()[1:]]
    assert [each["step"] for each in history] == [1, 2, 3]
    assert [each["value"] for each in history] == pytest.approx(losses, rel=1e-6)
    files = {each["path"] for each in ask(mlflow_server, f"artifacts/list?run_id={run_id}")["files"]}
    assert files == {"history.csv", "model_spec.json", "training_options.json", "report"}
    # The files are those that the report has completed, the metrics those of its evaluation.
    for name in ("model_spec.json", "report/index.html"):
        assert (stored.parent / name).read_text() == (folder / name).read_text()
    evaluated = json.loads((folder / "evaluation" / "evaluation.json").read_text())["metrics"]["accuracy"]
    metrics = {each["key"]: each["value"] for each in recorded["data"]["metrics"]}
    for key, suffix in (("value", ""), ("low", "_low"), ("high", "_high")):
        assert metrics[f"evaluation/accuracy{suffix}"] == pytest.approx(evaluated[key], rel=1e-6)


@pytest.mark.slow
@needs_mlflow
def test_a_run_trains_to_its_end_if_the_mlflow_server_is_down(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(callbacks=(MLflow(f"http://127.0.0.1:{free_port()}"),), training__epochs=2)
    errors = train_in_a_process(run, tmp_path)
    assert errors.count("MLflow does not record this run at the moment") == 1
    assert "WARNING:" not in errors  # of the libraries


@pytest.mark.slow
@needs_wandb
def test_wandb_offline_records_a_resumed_run_under_one_id_with_settings_and_epochs(
    make_run: MakeRun, tmp_path: Path
) -> None:
    from wandb.proto.wandb_internal_pb2 import Record

    run = make_run(callbacks=(WeightsAndBiases("pets", mode="offline"),), training__epochs=1)
    train_in_a_process(run, tmp_path)
    train_in_a_process(run, tmp_path, "--resume", "--set", "training.epochs=3")
    (folder,) = Path(run.output_dir).iterdir()
    records: list[list[Any]] = []
    for file in sorted((folder / "logs" / "wandb").glob("offline-run-*/run-*.wandb")):
        records.append([Record.FromString(data) for data in records_in(file.read_bytes())])
    assert len(records) == 2
    started = [next(each.run for each in session if each.HasField("run")) for session in records]
    assert started[0].run_id == started[1].run_id
    assert {each.project for each in started} == {"pets"}
    for session, epochs in zip(records, (1, 3), strict=True):
        updates = [item for each in session if each.HasField("config") for item in each.config.update]
        config = {item.key: json.loads(item.value_json) for item in updates}
        assert config["training.epochs"] == epochs
        assert config["versions.keras"] == keras.__version__
    rows = [
        {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in each.history.item}
        for session in records
        for each in session
        if each.HasField("history")
    ]
    losses = [float(line.split(",")[3]) for line in (folder / "history.csv").read_text().splitlines()[1:]]
    assert [row["_step"] for row in rows] == [1, 2, 3]
    assert [row["val_loss"] for row in rows] == pytest.approx(losses, rel=1e-6)
    updates = [item for each in records[1] if each.HasField("summary") for item in each.summary.update]
    summary = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in updates}
    evaluated = json.loads((folder / "evaluation" / "evaluation.json").read_text())["metrics"]["accuracy"]
    for key, suffix in (("value", ""), ("low", "_low"), ("high", "_high")):
        assert summary[f"evaluation/accuracy{suffix}"] == pytest.approx(evaluated[key])
    (artifact,) = [each.artifact for each in records[1] if each.HasField("artifact")]
    sizes = {entry.path: entry.size for entry in artifact.manifest.contents}
    for name in ("model_spec.json", "report/index.html"):
        assert sizes[name] == (folder / name).stat().st_size


@pytest.mark.slow
@needs_wandb
def test_a_run_trains_to_its_end_if_wandb_does_not_answer(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(callbacks=(WeightsAndBiases("pets"),), training__epochs=2)
    server = f"http://127.0.0.1:{free_port()}"
    errors = train_in_a_process(run, tmp_path, WANDB_MODE="online", WANDB_BASE_URL=server, WANDB_API_KEY="0" * 40)
    assert errors.count("Weights & Biases does not record this run at the moment") == 1


def records_in(log: bytes) -> Iterator[bytes]:
    """The records of a `.wandb` file, in the format of LevelDB's logs: blocks of 32 KiB, after a header of 7 bytes."""
    record, position = b"", 7
    while position + 7 <= len(log):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        size, kind = struct.unpack_from("<HB", log, position + 4)
        if kind == 0:
            return
        record += log[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):  # whole, or the last fragment
            yield record
            record = b""
