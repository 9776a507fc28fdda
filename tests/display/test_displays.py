"""The HTML representations of runs, results and so on: correct, readable, and with every value escaped."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model_trainer import AdamW, Call, ImageFolder, ModelSpec, MultiLabel, RandomFlip, Run, Training
from model_trainer.diagnosis.data import examine
from model_trainer.evaluation.fold_metrics import FoldMetric
from model_trainer.evaluation.folds import FoldsResult
from model_trainer.model_files.load import TrainedModel
from model_trainer.run.run_html import GROUPS, value_text
from model_trainer.serving.predictor import Predictions
from model_trainer.sources.examples import Examples
from model_trainer.tasks.classification_evaluation import evaluate_classes
from model_trainer.tasks.multi_label_evaluation import evaluate_tags
from model_trainer.training.train import Result

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
MakeRun = Callable[..., Run]


class Page(HTMLParser):
    """A parsed HTML fragment: text, tags, attributes, and the cells of each table row."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text = ""
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.rows: list[list[str]] = []
        self.classes: list[str | None] = []  # the CSS class of each row
        self._inside = ""  # the element that contains the current text
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        self._inside = self._inside if tag in ("br", "code", "div") else tag
        if tag == "tr":
            self.rows.append([])
            self.classes.append(dict(attrs).get("class"))
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside if tag in ("br", "code", "div") else ""

    def handle_data(self, data: str) -> None:
        if self._inside == "style":
            return
        self.text += data
        if self._inside in ("td", "th"):
            self.rows[-1][-1] += data.strip()

    @property
    def jpegs(self) -> list[Image.Image]:
        start = "data:image/jpeg;base64,"
        codes = [value for name, value in self.attributes if name == "src" and value and value.startswith(start)]
        return [Image.open(io.BytesIO(base64.b64decode(code.removeprefix(start)))) for code in codes]


def html_of(value: Any) -> str:
    return value._repr_html_()


def parsed(value: Any) -> Page:
    return Page(html_of(value))


# Run


def a_run(**changes: Any) -> Run:
    run = Run(spec=ModelSpec.named("vgg19"), train_data=ImageFolder("data/train"))
    return run.changed_all({name.replace("__", "."): value for name, value in changes.items()})


def test_each_field_of_a_run_is_in_one_group() -> None:
    assert sorted(field for fields in GROUPS.values() for field in fields) == sorted(Run.model_fields)


def test_a_changed_option_is_shown_with_its_default() -> None:
    page = parsed(a_run(training__epochs=30))
    assert ["training.epochs", "30", "default: 2"] in page.rows
    assert page.classes[page.rows.index(["training.epochs", "30", "default: 2"])] == "changed"


def test_an_option_at_its_default_is_dimmed_and_collapsed() -> None:
    page = parsed(a_run())
    assert page.classes[page.rows.index(["training.epochs", "2", ""])] == "soft"
    inside = "".join(re.findall(r"<details>.*?</details>", html_of(a_run()), re.DOTALL))
    assert "training.epochs" in inside
    assert "train_data" not in inside


def test_every_option_of_a_run_is_shown_once() -> None:
    names = [row[0] for row in parsed(a_run()).rows]
    assert len(names) == len(set(names))
    assert {"spec.class", "training.divergence.bad_steps", "network.pooling", "output_dir"} <= set(names)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (AdamW(clip_norm=1.0), "AdamW(clip_norm=1.0)"),
        (RandomFlip(), "RandomFlip()"),
        (Call("my_code.make", alpha=0.5), "Call('my_code.make', alpha=0.5)"),
        (ImageFolder("data/train").take(5), "Subset(source=ImageFolder(path='data/train'), count=5)"),
        ((1, "a"), "(1, 'a')"),
        ((1,), "(1,)"),
    ],
    ids=str,
)
def test_a_value_is_formatted_without_its_defaults(value: Any, text: str) -> None:
    assert value_text(value) == text


def test_a_network_of_another_type_is_shown_with_the_default_type() -> None:
    page = parsed(a_run(network=Call("my_code.make_model")))
    assert ["network", "OwnModel", "default: Network"] in page.rows
    assert ["network.model", "Call('my_code.make_model')", ""] in page.rows


def test_showing_a_run_does_not_import_tensorflow() -> None:
    code = (
        "import sys; from model_trainer import ImageFolder, ModelSpec, Run\n"
        "run = Run(spec=ModelSpec.named('vgg19'), train_data=ImageFolder('data/train'))\n"
        "assert 'training.epochs' in run._repr_html_()\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"tensorflow", "keras", "matplotlib", "IPython"}


# Examples


def test_examples_show_the_number_of_images_by_class(colors: Path) -> None:
    page = parsed(ImageFolder(colors / "train").read())
    assert page.rows[1:] == [["blue", "5", ""], ["green", "5", ""], ["red", "5", ""]]
    assert "15 images of 3 classes" in page.text


def test_examples_show_at_most_twelve_images_of_all_classes(colors: Path) -> None:
    page = parsed(ImageFolder(colors / "train").read())
    assert len(page.jpegs) == 12
    means = np.array([np.asarray(jpeg).mean(axis=(0, 1)) for jpeg in page.jpegs])
    assert {tuple(channel) for channel in np.argsort(means)[:, 2:].tolist()} == {(0,), (1,), (2,)}  # red, green, blue


def test_a_thumbnail_is_small(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    Image.new("RGB", (800, 400)).save(tmp_path / "cat" / "1.jpg")
    (jpeg,) = parsed(ImageFolder(tmp_path).read()).jpegs
    assert jpeg.size == (112, 56)


def test_a_thumbnail_shows_only_the_crop(tmp_path: Path) -> None:
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[10:20, 30:40] = (250, 0, 0)
    Image.fromarray(pixels).save(tmp_path / "1.png")
    crops = np.array([[10, 30, 10, 10], [35, 0, 10, 10], [0, 0, 0, 0]], np.int32)
    paths = [str(tmp_path / "1.png")] * 3
    page = parsed(Examples.of_files(paths, np.zeros(3, np.int32), ("a",), "here", crops=crops))
    cropped, uncropped = page.jpegs
    assert cropped.size == (10, 10)
    assert np.asarray(cropped).mean(axis=(0, 1)) == pytest.approx([250, 0, 0], abs=6)
    assert uncropped.size == (40, 40)
    assert "does not contain its crop [35, 0, 10, 10]" in page.text


def test_an_unreadable_image_is_replaced_by_the_reason(tmp_path: Path) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "1.png")
    (tmp_path / "2.png").write_bytes((tmp_path / "1.png").read_bytes()[:40])
    paths = [str(tmp_path / f"{number}.png") for number in (1, 2, 3)]
    page = parsed(Examples.of_files(paths, np.array([0, 1, 1]), ("cat", "dog"), "here"))
    assert len(page.jpegs) == 1
    assert "2.png is truncated" in page.text
    assert "3.png does not exist" in page.text


def test_of_many_classes_only_the_largest_are_shown() -> None:
    labels = np.concatenate([np.arange(100), np.full(5, 70)])
    classes = tuple(f"class{number}" for number in range(100))
    page = parsed(Examples.of_files(["gone.png"] * 105, labels, classes, "here"))
    assert ["class70", "6", ""] in page.rows
    assert len(page.rows) == 21
    assert "80 more classes" in page.text


def test_empty_examples_are_shown() -> None:
    assert "0 images of 1 class" in parsed(Examples.of_files([], np.zeros(0, np.int32), ("cat",), "here")).text


def test_the_repr_of_examples_is_one_line(colors: Path) -> None:
    assert repr(ImageFolder(colors / "train").read()).endswith("train: 15 images of 3 classes>")


# Result, evaluation, predictions, diagnosis


def a_result(folder: Path, **changes: Any) -> Result:
    history = [
        {"epoch": 1.0, "loss": 2.0, "val_loss": 1.5, "val_accuracy": 0.5, "learning_rate": 1e-3, "seconds": 62.0},
        {"epoch": 2.0, "loss": 1.0, "val_loss": 1.7, "val_accuracy": 0.75, "learning_rate": 1e-4, "seconds": 9.0},
    ]
    result = Result(folder, history, {}, best_epochs={"model_max_acc": 2, "model_min_loss": 1})
    return replace(result, **changes)


def test_a_result_shows_its_epochs_and_marks_the_best(tmp_path: Path) -> None:
    page = parsed(a_result(tmp_path))
    assert page.rows[0] == ["epoch", "loss", "val_loss", "val_accuracy", "learning_rate", "seconds", ""]
    assert page.rows[1] == ["1", "2.0000", "1.5000", "0.5000", "1.00e-03", "1:02 min", "★ model_min_loss"]
    assert page.rows[2] == ["2", "1.0000", "1.7000", "0.7500", "1.00e-04", "9 s", "★ model_max_acc"]
    assert page.classes == [None, None, "best"]


def test_a_result_draws_curves_and_names_its_files(tmp_path: Path) -> None:
    (tmp_path / "history.csv").touch()
    page = parsed(a_result(tmp_path))
    assert ("aria-label", "accuracy by epoch") in page.attributes
    assert {"svg", "polyline"} <= page.tags
    assert str(tmp_path) in page.text
    assert "history.csv" in page.text


def test_a_result_without_an_epoch_shows_the_reason(tmp_path: Path) -> None:
    page = parsed(Result(tmp_path / "gone", [], {"a.jpg": "is empty"}, stopped="SIGTERM", hints=("Look out.",)))
    assert "0 epochs trained" in page.text
    for note in ("1 image could not be read", "Stopped early by SIGTERM", "Look out."):
        assert note in page.text


def an_evaluation(classes: tuple[str, ...]) -> Any:
    return evaluate_classes(np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]]), classes)


def test_an_evaluation_shows_metrics_and_a_row_for_each_class() -> None:
    page = parsed(an_evaluation(("cat", "dog")))
    assert ["accuracy", "0.6667 (0.0000 to 1.0000)"] in page.rows
    assert ["dog", "2", "1.000", "0.500", "0.667", "cat (1)"] in page.rows


def test_an_evaluation_of_tags_shows_a_row_for_each_tag() -> None:
    targets = np.array([[1.0, 0.0], [np.nan, 1.0]])
    page = parsed(evaluate_tags(targets, np.array([[0.9, 0.2], [0.5, 0.8]]), ("blue", "bold"), (0.5, 0.5)))
    assert ["bold", "1", "1.000", "0.500", "1.000", "1.000", "1.000"] in page.rows


def test_predictions_show_images_with_their_labels(colors: Path) -> None:
    path = str(colors / "val" / "red" / "0.png")
    likely = [{"label": "red", "probability": 0.9}, {"label": "blue", "probability": 0.08}]
    certain = [{"label": "green", "probability": 1.0}, {"label": "blue", "probability": 0.0}]
    page = parsed(Predictions([{"image": path, "predictions": likely}, {"image": path, "predictions": certain}]))
    assert len(page.jpegs) == 2
    assert "red 0.90, blue 0.08" in page.text
    assert "green 1.00" in page.text
    assert "blue 0.00" not in page.text


def test_predictions_of_other_tasks_and_images_without_labels_are_shown() -> None:
    page = parsed(
        Predictions(
            [
                {"image": "a.png", "predictions": [{"label": "good", "rating": 3.25}]},
                {"image": "b.png", "predictions": []},
                {"image": "c.png", "error": "is empty"},
            ]
        )
    )
    for text in ("good 3.25", "no label", "c.png"):
        assert text in page.text


def test_predictions_beyond_twelve_are_counted() -> None:
    page = parsed(Predictions([{"image": "a.png", "error": "does not exist"}] * 15))
    assert page.text.count("a.png does not exist") == 12
    assert "3 more" in page.text


def test_a_diagnosis_shows_its_findings(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").write_text("no image")
    diagnosis = examine(str(tmp_path))
    page = parsed(diagnosis)
    assert ["fault", "1 unreadable image"] in [row[:2] for row in page.rows]
    assert repr(diagnosis).startswith(f"<Diagnosis of {tmp_path}: 1 unreadable image")


# Hostile names


def hostile_values(folder: Path) -> dict[str, Any]:
    image = str(folder / "x" / f"{HOSTILE.replace('/', '')}.png")
    model: Any = SimpleNamespace(name=HOSTILE, count_params=lambda: 7)
    spec = ModelSpec(target_size=(8, 8, 3))
    diagnosis = SimpleNamespace(
        path=HOSTILE,
        survey=SimpleNamespace(splits=(SimpleNamespace(name=HOSTILE, examples=()),)),
        findings=(SimpleNamespace(level="fault", title=HOSTILE, cure=f"Try `{HOSTILE}`."),),
    )
    from model_trainer.diagnosis.data.diagnosis import Diagnosis

    return {
        "run": a_run(train_data=ImageFolder(HOSTILE), training__optimizer=Call("a.b", name=HOSTILE)),
        "examples": Examples.of_files([image], np.zeros(1, np.int32), (HOSTILE,), HOSTILE),
        "result": Result(Path(HOSTILE), [{"epoch": 1.0, HOSTILE: 1.0}], {}, stopped=HOSTILE, hints=(HOSTILE,)),
        "evaluation": an_evaluation((HOSTILE, "dog")),
        "predictions": Predictions(
            [
                {"image": image, "error": HOSTILE},
                {"image": image, "predictions": [{"label": HOSTILE, "probability": 1.0}]},
            ]
        ),
        "model": TrainedModel(model, spec, MultiLabel(), (HOSTILE,), Path(HOSTILE)),
        "folds": FoldsResult(
            path=Path(HOSTILE),
            folds=[Result(Path(HOSTILE), [], {})],
            main_metric=HOSTILE,
            metrics={HOSTILE: FoldMetric((1.0,), 1.0, 0.0, 1.0)},
        ),
        "diagnosis": SimpleNamespace(_repr_html_=lambda: Diagnosis._repr_html_(diagnosis)),  # type: ignore[arg-type]
    }


KINDS = ["run", "examples", "result", "evaluation", "predictions", "model", "diagnosis", "folds"]


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_names_are_escaped(kind: str, tmp_path: Path) -> None:
    page = parsed(hostile_values(tmp_path)[kind])
    assert "alert(1)" in page.text
    assert "script" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert [value for name, value in page.attributes if name == "src"] == []


def test_each_html_representation_is_tested_with_hostile_names(tmp_path: Path) -> None:
    package = Path(__file__).parents[2] / "model_trainer"
    modules = [path for path in package.rglob("*.py") if "def _repr_html_" in path.read_text()]
    assert len(modules) == len(KINDS) == len(hostile_values(tmp_path))


def test_a_keras_optimizer_is_shown_by_its_class_name() -> None:
    import keras

    run = a_run(training=Training(optimizer=keras.optimizers.Adagrad()))
    assert "Adagrad" in parsed(run).text
