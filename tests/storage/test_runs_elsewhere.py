"""Data and output folders in a storage other than the local disk."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from model_trainer import ImageFolder, Run, evaluate, load_model
from model_trainer.sources.manifest import Manifest
from model_trainer.storage import files
from model_trainer.storage.files import as_path
from model_trainer.storage.memory import Memory
from model_trainer.training.train import train_model

pytestmark = pytest.mark.usefixtures("short_pipeline", "eager_steps")

MakeRun = Callable[..., Run]


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in a new in-memory storage."""
    monkeypatch.setitem(files._MOUNTED, "memory", Memory())
    folder = as_path("memory://box")
    files.make_folder(folder)
    return folder


def test_declaring_a_remote_path_does_not_access_the_storage() -> None:
    program = """
import sys
sys.modules["tensorflow"] = None
from model_trainer import ModelSpec, Run
for path in ("gs://bucket/train-*.tfrecord", "gs://bucket/train.csv", "s3://bucket/train"):
    run = Run(spec=ModelSpec.named("mobilenet_v2"), train_data=path)
    print(type(run.train_data).__name__)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["TFRecords", "Manifest", "ImageFolder"]


def test_a_manifest_is_read_from_another_storage(memory: Path, colors: Path) -> None:
    rows = [f"{path},{path.parent.name}" for path in sorted((colors / "train").glob("*/*.png"))]
    files.write_text(memory / "train.csv", "\n".join(["image,label", *rows]))
    examples = Manifest(str(memory / "train.csv")).read()
    assert examples.classes == ("blue", "green", "red")
    assert len(examples) == 15
    assert list(examples.labels) == list(ImageFolder(colors / "train").read().labels)


def test_a_run_in_another_storage_trains_and_resumes_as_on_the_disk(
    make_run: MakeRun, memory: Path, colors: Path
) -> None:
    expected = train_model(make_run(training__epochs=2))
    run = make_run(training__epochs=1, output_dir=f"{memory}/output")
    first = train_model(run)
    assert str(first.path).startswith(f"{memory}/output/test-")
    result = train_model(run.changed("training.epochs", 2), resume=True)
    assert result.path == first.path
    assert [row["loss"] for row in result.history] == [row["loss"] for row in expected.history]
    names = set(files.names_in(expected.path))
    assert set(files.names_in(result.path)) == names | {"manifest.json"}
    assert files.names_in(result.path / "checkpoints") == files.names_in(expected.path / "checkpoints")
    assert files.read_text(result.path / "history.csv").count("\n") == 3
    remote, local = load_model(result.path), load_model(expected.path)
    for ours, theirs in zip(remote.model.get_weights(), local.model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert evaluate(result.path, colors / "val").metrics() == evaluate(expected.path, colors / "val").metrics()
