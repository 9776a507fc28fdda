"""The commands as a user runs them: their output and their exit codes, in real processes where these matter."""

from __future__ import annotations

import contextlib
import json
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from model_trainer import Run, evaluate
from model_trainer.cli.errors import exit_code_of
from model_trainer.cli.main import app
from model_trainer.errors import ConfigError, DivergedError, ModelTrainerError
from model_trainer.evaluation.data import source_of
from model_trainer.inference.precision_check import find_check
from model_trainer.training.train import train_model

pytestmark = pytest.mark.usefixtures("short_pipeline", "plain_graphs")  # commands in subprocesses use the full pipeline

MakeRun = Callable[..., Run]


def command(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "model_trainer", *arguments], capture_output=True, text=True, cwd=cwd, timeout=120
    )


def called(*arguments: str) -> tuple[int, str]:
    """Runs the command inside this process, which has TensorFlow loaded already; returns exit code and output."""
    result = CliRunner().invoke(app, [*arguments])
    if isinstance(result.exception, ModelTrainerError):
        return result.exception.exit_code, str(result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def output_dir(
    short_pipeline: None, plain_graphs: None, tmp_path_factory: pytest.TempPathFactory, colors: Path
) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    write_run_file(folder / "small.py", colors)
    with contextlib.chdir(folder):
        done = CliRunner().invoke(app, ["train", "small.py", "--set", "training.epochs=3"])
    assert done.exit_code == 0, done.output
    return folder / results_of(done.stdout)


def results_of(output: str) -> str:
    """The folder that is named in the last line of the output of `train`."""
    lines = output.splitlines()
    assert lines[0].split()[:3] == ["epoch", "loss", "accuracy"]
    assert lines[-1].startswith("Results: output/")
    return lines[-1].removeprefix("Results: ")


def write_run_file(path: Path, colors: Path, epochs: int = 1) -> None:
    path.write_text(
        f"""
from model_trainer import *

run = Run(
    name="small",
    spec=ModelSpec(**{{"class": "model_trainer.testing.small_backbone", "target_size": [16, 16, 3],
                     "preprocess_func": "between_plus_minus_1"}}),
    weights=None,
    train_data=ImageFolder({str(colors / "train")!r}),
    val_data=ImageFolder({str(colors / "val")!r}),
    augment=(),
    training=Training(epochs={epochs}, batch_size=5, learning_rate=0.05, optimizer=SGD(momentum=0.9)),
)
"""
    )


def test_the_command_line_is_recorded(output_dir: Path) -> None:
    command = json.loads((output_dir / "training_options.json").read_text())["command"]
    assert command[1:] == sys.argv[1:]


def test_an_override_changes_the_run(output_dir: Path) -> None:
    options = json.loads((output_dir / "training_options.json").read_text())
    assert options["run"]["training"]["epochs"] == 3
    assert (output_dir / "history.csv").read_text().count("\n") == 4


def test_predict_prints_a_json_list_and_nothing_else(
    output_dir: Path, colors: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    images = [str(colors / "val" / name / "0.png") for name in ("red", "blue")]
    result = CliRunner().invoke(app, ["predict", str(output_dir), *images, "--json"])
    assert result.exit_code == 0
    assert capfd.readouterr().out == ""  # written by C++ code past sys.stdout
    records = json.loads(result.stdout)
    assert [record["image"] for record in records] == images
    assert [record["predictions"][0]["label"] for record in records] == ["red", "blue"]
    assert sum(each["probability"] for each in records[0]["predictions"]) == pytest.approx(1.0, abs=1e-5)


def test_predict_continues_after_an_unreadable_image_and_exits_with_2(
    output_dir: Path, colors: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"not an image")
    good = str(colors / "val" / "green" / "0.png")
    code, output = called("predict", str(output_dir), str(tmp_path / "bad.jpg"), good, "--json")
    assert code == 2
    records = json.loads(output)
    assert records[0] == {"image": str(tmp_path / "bad.jpg"), "error": "is not an image"}
    assert records[1]["predictions"][0]["label"] == "green"


def test_predict_accepts_folders_and_prints_a_table(output_dir: Path, colors: Path) -> None:
    code, output = called("predict", str(output_dir / "final_model.hdf5"), str(colors / "val" / "red"), "--top", "1")
    assert code == 0
    lines = output.splitlines()
    assert lines[0].split() == ["image", "predictions"]
    assert len(lines) == 4
    assert all(" red " in line for line in lines[1:])


def test_evaluate_prints_the_metrics_of_the_best_epoch(output_dir: Path) -> None:
    code, output = called("evaluate", str(output_dir))
    assert code == 0
    rows = (output_dir / "history.csv").read_text().splitlines()
    column = rows[0].split(",").index("val_accuracy")
    best = max(float(row.split(",")[column]) for row in rows[1:])
    metrics = dict(line.split()[:2] for line in output.splitlines() if line)
    assert float(metrics["accuracy"]) == pytest.approx(best, abs=1e-4)
    assert metrics["images"] == "9"


def test_evaluate_accepts_other_data(output_dir: Path, colors: Path) -> None:
    code, output = called("evaluate", str(output_dir), "--data", str(colors / "train"))
    assert code == 0
    assert ["images", "15"] in [line.split() for line in output.splitlines()]
    written = json.loads((output_dir / f"evaluation-{colors.name}-train" / "evaluation.json").read_text())
    assert written["data"]["split"] == "other"


def test_evaluate_writes_its_files_and_the_report(output_dir: Path) -> None:
    shutil.rmtree(output_dir / "evaluation", ignore_errors=True)
    assert called("evaluate", str(output_dir))[0] == 0
    content = json.loads((output_dir / "evaluation" / "evaluation.json").read_text())
    lines = (output_dir / "evaluation" / "predictions.csv").read_text().splitlines()
    assert content["data"]["images"] == 9 == len(lines) - 1
    assert content["metrics"]["accuracy"]["value"] == sum(",true," in line for line in lines) / 9
    assert (output_dir / "report" / "index.html").is_file()


def test_evaluate_compares_several_models_and_lists_discordant_images(output_dir: Path, tmp_path: Path) -> None:
    models = [str(output_dir / name) for name in ("model_max_acc.hdf5", "final_model.hdf5")]
    code, output = called("evaluate", *models, "--output", str(tmp_path / "results"))
    assert code == 0
    assert f"{models[1]} compared with {models[0]}" in output
    assert "McNemar" in output
    assert (tmp_path / "results" / "changed.csv").read_text().splitlines()[0] == "image,first,second,right"


def test_evaluating_with_tta_or_another_model_does_not_overwrite_the_evaluation_of_the_run(output_dir: Path) -> None:
    assert called("evaluate", str(output_dir))[0] == 0
    before = (output_dir / "evaluation" / "evaluation.json").read_bytes()
    assert called("evaluate", str(output_dir), "--tta", "flips")[0] == 0
    assert called("evaluate", str(output_dir / "model_min_loss.hdf5"))[0] == 0
    assert (output_dir / "evaluation" / "evaluation.json").read_bytes() == before
    assert (output_dir / "evaluation-flips" / "evaluation.json").is_file()
    assert (output_dir / "evaluation-model_min_loss" / "evaluation.json").is_file()


def test_an_ensemble_of_a_model_with_itself_has_the_metrics_of_that_model(output_dir: Path, tmp_path: Path) -> None:
    code, _ = called(
        "evaluate", str(output_dir), str(output_dir), "--ensemble", "mean", "--output", str(tmp_path / "results")
    )
    assert code == 0
    content = json.loads((tmp_path / "results" / "evaluation.json").read_text())
    assert len(content["settings"]["ensemble"]) == 2
    alone = evaluate(output_dir).estimates()["accuracy"]
    assert content["metrics"]["accuracy"] == alone.to_dict()


def test_coarse_classes_have_their_own_metrics(output_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "coarse.csv").write_text("blue,cold\ngreen,cold\nred,warm\n")
    code, output = called(
        "evaluate", str(output_dir), "--coarse", str(tmp_path / "coarse.csv"), "--tta", "flips", "--output",
        str(tmp_path / "results"),
    )  # fmt: skip
    assert code == 0
    content = json.loads((tmp_path / "results" / "evaluation.json").read_text())
    assert content["coarse"]["classes"] == ["cold", "warm"]
    assert 0 <= content["coarse"]["metrics"]["accuracy"]["value"] <= 1
    assert content["settings"]["tta"] == "flips"
    assert sum(each["images"] for each in content["slices"][0]["values"]) == 9
    assert "Coarser classes of " in output
    assert ["cold", "6"] in [line.split()[:2] for line in output.splitlines()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("OTHER", "--by", "camera"), "`--by` is for one model, or for several with --ensemble"),
        (("OTHER", "--coarse", "a.csv"), "`--coarse` is for one model, or for several with --ensemble"),
        (("--ensemble", "mean"), "`--ensemble` needs at least two models"),
        (("--precision", "bfloat16", "--tta", "flips"), "`--tta` does not go together with --precision"),
        (("OTHER", "--precision", "bfloat16"), "`--precision` checks one model, got 2"),
        (("--by", "camera"), "is not a manifest, so it has no column 'camera'"),
        (("--coarse", "none.csv"), "There is no file none.csv"),
    ],
)
def test_evaluate_refuses_incompatible_options(output_dir: Path, arguments: tuple[str, ...], message: str) -> None:
    others = [str(output_dir) if each == "OTHER" else each for each in arguments]
    code, output = called("evaluate", str(output_dir), *others)
    assert code == 2
    assert message in output


def test_evaluate_checks_a_precision_and_records_the_result(output_dir: Path) -> None:
    model_file = output_dir / "final_model.hdf5"
    code, output = called("evaluate", str(model_file), "--precision", "bfloat16", "--engine", "keras")
    check = find_check(model_file, "bfloat16")
    assert (code, check.engine, check.num_images, check.same_labels) == (0, "keras", 9, 1.0)
    assert 0 < check.largest_change < 0.05
    assert "bfloat16 passed: at least 99% of the predictions are the same" in output
    assert f"{check.after:.4f}" in output
    assert ("But it is not faster than float32" in output) == (check.speed <= 1)


def test_a_precision_check_that_cannot_be_recorded_is_printed_and_says_that_it_used_training_images(
    output_dir: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(output_dir, tmp_path / "copy")
    options = json.loads((folder / "training_options.json").read_text())
    options["run"]["val_data"] = None
    (folder / "training_options.json").write_text(json.dumps(options))
    (folder / "precision.json").unlink(missing_ok=True)
    (folder / "precision.json").mkdir()
    result = CliRunner().invoke(app, ["evaluate", str(folder), "--precision", "bfloat16", "--engine", "keras"])
    assert "precision.json could not be written" in str(result.exception)
    assert "same predictions" in result.output
    assert "checked on its training images" in result.output


def test_evaluate_accepts_the_options_of_a_data_source(output_dir: Path, colors: Path, tmp_path: Path) -> None:
    rows = [f"{name}/{file.name},{label}" for label, name in enumerate(("blue", "green", "red"))
            for file in sorted((colors / "val" / name).iterdir())]  # fmt: skip
    (tmp_path / "data.csv").write_text("\n".join(["filename,class_id", *rows]))
    data = ["--data", str(tmp_path / "data.csv"), "--root", str(colors / "val")]
    code, output = called("evaluate", str(output_dir), *data, "--classes", "blue,green,red")
    assert code == 0
    default_output = called("evaluate", str(output_dir))[1]
    assert _metrics_in(output) == _metrics_in(default_output)
    with pytest.raises(ConfigError, match=r"`classes` needs `data` to be a path \(--data PATH\)"):
        evaluate(output_dir, classes=("blue", "green", "red"))
    with pytest.raises(ConfigError, match=r"`--root` is for the paths in a manifest"):
        evaluate(output_dir, str(colors / "val"), root="images")


def _metrics_in(output: str) -> list[str]:
    others = ("Model: ", "Results: ", "Report: ", "Temperature scaling ")
    return [line for line in output.splitlines() if not line.startswith(others)]


def test_output_names_of_a_foreign_model_apply_only_to_class_indices(tmp_path: Path, colors: Path) -> None:
    (tmp_path / "names.csv").write_text("filename,label\na.png,dog\nb.png,cat\n")
    (tmp_path / "numbers.csv").write_text("filename,class_id\na.png,1\nb.png,0\n")

    def classes_of(path: Path) -> tuple[str, ...]:
        return source_of(str(path), None, ("dog", "cat"), is_external=True).read().classes

    assert classes_of(tmp_path / "names.csv") == ("cat", "dog")
    assert classes_of(tmp_path / "numbers.csv") == ("dog", "cat")
    assert classes_of(colors / "val") == ("blue", "green", "red")


def test_specs_lists_all_specs_or_prints_one_as_json() -> None:
    code, output = called("specs")
    assert code == 0
    assert "keras.applications.vgg19.VGG19" in output
    code, output = called("specs", "resnet50")
    assert json.loads(output)["class"] == "keras.applications.resnet50.ResNet50"


def test_train_repeats_a_run_from_its_training_options(output_dir: Path, tmp_path: Path) -> None:
    code, _ = called(
        "train", str(output_dir / "training_options.json"), "--set", "training.epochs=1", "--set",
        f"output_dir={tmp_path}",
    )  # fmt: skip
    assert code == 0
    assert len(list(tmp_path.glob("small-*/final_model.hdf5"))) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "none.py"), "There is no file none.py"),
        (("train", "none.json"), "There is no file none.json"),
        (("train", "RUN", "--set", "training.epoch=3"), "`training.epoch` is not an option of Training. Did you mean"),
        (("train", "RUN", "--set", "training.epochs=abc"), "`training.epochs` should be a whole number, got 'abc'"),
        (("train", "RUN", "--set", "training.epochs"), "--set needs name=value"),
        (("train", "RUN", "--set", "weights=nowhere.hdf5"), "`weights` should be imagenet, none, auto or a model file"),
        (("train", "RUN", "--set", "weights=imagnet"), "there is no file imagnet. Did you mean 'imagenet'?"),
        (("train", "RUN", "--resume-from", "nowhere"), "nowhere has no training_options.json"),
        (("train", "RUN", "--set", "output_dir=/proc/nowhere"), "The output folder /proc/nowhere/small-"),
        (("train", "RUN", "--set", "train_data.path=nowhere"), "There is no folder nowhere. Put images into one"),
        (("train", "RUN", "--set", "training.batch_size=99"), "has 15 images. Lower it: --set training.batch_size=15"),
        (("train", "RUN", "--set", "spec.target_size=[0,0,3]"), "`spec.target_size` should be three positive"),
        (("predict", "none", "a.jpg"), "There is no model file or output folder none"),
        (("evaluate", "none"), "There is no model file or output folder none"),
        (("specs", "resnet51"), "Did you mean 'resnet50'?"),
    ],
)
def test_wrong_input_gives_one_message_and_exit_code_2(
    tmp_path: Path, colors: Path, arguments: tuple[str, ...], message: str
) -> None:
    write_run_file(tmp_path / "small.py", colors)
    code, output = called(*(str(tmp_path / "small.py") if word == "RUN" else word for word in arguments))
    assert code == 2
    assert message in output


def test_an_error_message_goes_to_standard_error_without_a_traceback() -> None:
    done = command("specs", "resnet51")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: ")
    assert "Did you mean 'resnet50'?" in done.stderr
    assert done.stderr.count("\n") == 1


def test_code_named_by_a_json_file_needs_trust(tmp_path: Path, output_dir: Path) -> None:
    options = json.loads((output_dir / "training_options.json").read_text())
    options["run"]["callbacks"] = [{"type": "os.system", "command": f"touch {tmp_path}/harm"}]
    (tmp_path / "options.json").write_text(json.dumps(options))
    code, message = called("train", str(tmp_path / "options.json"))
    assert code == 2
    assert "`callbacks.0.type` names the code 'os.system'" in message
    assert "--trust" in message
    assert not (tmp_path / "harm").exists()


def test_a_model_file_that_names_code_needs_trust(tmp_path: Path, output_dir: Path) -> None:
    description = json.loads((output_dir / "model_spec.json").read_text()) | {"class": "os.system"}
    import h5py

    target = tmp_path / "harmful.hdf5"
    target.write_bytes((output_dir / "final_model.hdf5").read_bytes())
    with h5py.File(target, "r+") as file:
        file.attrs["model_spec"] = json.dumps(description)
    code, message = called("predict", str(target), "a.jpg")
    assert code == 2
    assert "os.system" in message
    assert "--trust" in message


def test_divergence_exits_with_3(capsys: pytest.CaptureFixture[str]) -> None:
    def diverge() -> None:
        raise DivergedError("The loss is NaN.")

    assert exit_code_of(diverge) == 3
    assert capsys.readouterr().err == "Error: The loss is NaN.\n"


# Each training runs in a fork of a process that has imported everything but has not run TensorFlow yet.
SIGNALLED = """
import json, os, signal, sys
from pathlib import Path
import model_trainer.quiet_tensorflow
import keras
import model_trainer.training.train
from model_trainer.cli.main import main

class Press(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            for _ in range(int(os.environ["PRESSES"])):
                os.kill(os.getpid(), getattr(signal, os.environ["SIGNAL"]))

if __name__ != "__main__":  # imported as the run file
    exec(Path("small.py").read_text())
    run = run.changed("callbacks", (Press(),)).changed("training.epochs", 50).changed("val_data", None)
else:
    codes = []
    for name, presses in (("SIGTERM", 1), ("SIGINT", 2)):
        child = os.fork()
        if child == 0:
            os.environ.update(SIGNAL=name, PRESSES=str(presses))
            with open(name, "w") as errors:
                os.dup2(errors.fileno(), 2)
            sys.argv = ["model-trainer", "train", "signalled.py", "--set", f"output_dir=output-{name}"]
            main()
            os._exit(99)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print(json.dumps(codes))
"""


def check_stopped(code: int, error: str, output: Path, name: str, expected: int) -> None:
    assert code == expected, error
    assert "Traceback" not in error
    assert not list(output.glob("*/final_model.hdf5"))
    assert len(list(output.glob("*/checkpoints/epoch-*"))) == (1 if expected == 75 else 0)
    if expected == 75:
        assert f"{name}: stopping after this step and saving" in error


def test_ctrl_c_stops_after_the_step_and_saves(
    tmp_path: Path, colors: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write_run_file(tmp_path / "small.py", colors)
    (tmp_path / "signalled.py").write_text(SIGNALLED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIGNAL", "SIGINT")
    monkeypatch.setenv("PRESSES", "1")
    code = exit_code_of(lambda: app(["train", "signalled.py"]))
    check_stopped(code, capfd.readouterr().err, tmp_path / "output", "SIGINT", 75)


def test_real_processes_stop_after_the_step_or_at_once_at_a_second_ctrl_c(tmp_path: Path, colors: Path) -> None:
    write_run_file(tmp_path / "small.py", colors)
    (tmp_path / "signalled.py").write_text(SIGNALLED)
    command = [sys.executable, "signalled.py"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    codes = json.loads(done.stdout.splitlines()[-1])
    for code, name, expected in zip(codes, ("SIGTERM", "SIGINT"), (75, 130), strict=True):
        check_stopped(code, (tmp_path / name).read_text(), tmp_path / f"output-{name}", name, expected)


def test_a_pipe_that_is_closed_early_is_not_an_error() -> None:
    program = f"{sys.executable} -m model_trainer specs | head -1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {program}"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_names_every_command() -> None:
    done = command("--help")
    assert done.returncode == 0
    for name in ("train", "evaluate", "predict", "specs", "gpu"):
        assert name in done.stdout


def test_train_model_py_trains_the_sample_when_asked(tmp_path: Path) -> None:
    """Not the whole sample: a small network of one epoch, on the sample's own photos."""
    script = Path(__file__).parents[2] / "script" / "TrainModel.py"
    small = ["--set", "spec.class=model_trainer.testing.small_backbone", "--set", "spec.target_size=[16,16,1]",
             "--set", "spec.preprocess_func=between_plus_minus_1", "--set", "training.epochs=1",
             "--set", "training.batch_size=100"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, script, "--sample", *small], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "data" / "sample" / "train").glob("*/*.png"))) == 2000
    assert len(list((tmp_path / "data" / "sample" / "val").glob("*/*.png"))) == 500
    assert "Data: 2,000 images of 10 classes to train, 500 to validate." in done.stderr
    assert "InitializeLog" not in done.stderr
    assert (tmp_path / results_of(done.stdout) / "final_model.hdf5").is_file()


def test_train_model_py_without_images_explains_the_data_folder_and_suggests_the_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    script = Path(__file__).parents[2] / "script" / "TrainModel.py"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(script)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name="__main__")
    output, error = capfd.readouterr()
    assert (ended.value.code, output) == (2, "")
    assert "\nError: There is no folder data/train. Put images into one folder for each class" in error
    assert "--sample" in error
    assert error.count("\n") <= 5


@pytest.mark.usefixtures("whole_pipeline")
def test_the_saved_model_has_the_validation_metrics_of_its_training(make_run: MakeRun) -> None:
    """val_accuracy of the last epoch is that of the saved file, image by image."""
    run = make_run(training__epochs=2)
    result = train_model(run)
    evaluation = evaluate(result.path / "final_model.hdf5")
    assert evaluation.accuracy == pytest.approx(result.history[-1]["val_accuracy"])
    assert evaluation.loss == pytest.approx(result.history[-1]["val_loss"], abs=1e-5)
    assert np.trace(evaluation.confusion) == round(evaluation.accuracy * 9)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler  # training put the handler back


def test_predictions_in_a_pipe_have_untruncated_paths(output_dir: Path, colors: Path, tmp_path: Path) -> None:
    deep = tmp_path / ("a" * 60) / ("b" * 60)
    deep.mkdir(parents=True)
    (deep / "red.png").write_bytes((colors / "val" / "red" / "0.png").read_bytes())
    code, output = called("predict", str(output_dir), str(deep / "red.png"))
    assert code == 0
    assert str(deep / "red.png") in output
