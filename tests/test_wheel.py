"""The wheel: what is inside, and that it works where there is no checkout."""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from email.message import Message
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"

RUN = """
from model_trainer import *
from model_trainer.sources.sample import unpack_sample

sample = unpack_sample("sample")
run = Run(
    name="tiny",
    spec=ModelSpec(**{"class": "model_trainer.testing.small_backbone", "target_size": [16, 16, 3]}),
    weights=None,
    train_data=ImageFolder(sample / "val"),  # a quarter of the images
    val_data=ImageFolder(sample / "val"),
    training=Training(epochs=1, batch_size=64),
    hardware=Hardware(platform="cpu"),
)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built from a copy, so that nothing is left behind here."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(ROOT / "model_trainer", source / "model_trainer", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run([sys.executable, "-c", BUILD, str(folder)], cwd=source, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    folder = ROOT / "model_trainer"
    files = {str(path.relative_to(ROOT)) for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert inside == files
    assert inside >= {"model_trainer/py.typed", "model_trainer/sources/sample/clothes.zip"}
    assert inside >= {f"model_trainer/report/templates/{name}" for name in ("base.html", "style.css")}


def test_the_metadata_declare_license_python_versions_and_extras(wheel: Path) -> None:
    fields = metadata(wheel)
    assert fields["Name"] == "model-trainer"
    assert fields["License-Expression"] == "MIT"
    assert set(fields["Requires-Python"].split(",")) == {">=3.11", "<3.14"}
    assert set(fields.get_all("Provides-Extra") or ()) == {
        "dev",
        "docs",
        "gpu",
        "labels",
        "mlflow",
        "notebooks",
        "openvino",
        "ray",
        "s3",
        "serve",
        "tfds",
        "wandb",
    }


def test_the_wheel_requires_what_the_project_declares(wheel: Path) -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    required = [line for line in metadata(wheel).get_all("Requires-Dist") or () if "extra ==" not in line]
    names = [[line.partition(">")[0].partition("<")[0] for line in lines] for lines in (required, declared)]
    assert names[0] == names[1]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel; its dependencies are those of the environment that runs the tests."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, symlinks=True)
    python = str(folder / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "--python", python]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", str(wheel)], check=True)
    inside = sysconfig.get_path("purelib", "venv", {"base": str(folder)})
    # After its own packages, and without .pth files, one of which leads to the checkout.
    Path(inside, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


@pytest.mark.slow
def test_the_wheel_trains_in_a_fresh_environment(installed: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def run(program: str, *arguments: str) -> str:
        command = [str(installed / "bin" / program), *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = run("python", "-c", "import model_trainer; print(model_trainer.__file__)")
    assert Path(where.strip()).is_relative_to(installed)
    assert "train" in run("model-trainer", "--help")
    assert "224" in run("model-trainer", "specs", "vgg19")

    (tmp_path / "run.py").write_text(RUN)
    run("model-trainer", "train", "run.py")
    (folder,) = (tmp_path / "output").iterdir()
    assert (folder / "model_max_acc.hdf5").exists()
    assert "loss" in (folder / "history.csv").read_text().splitlines()[0]

    assert run("model-trainer", "predict", str(folder), "sample/val/bag", "--top", "1")
    run("model-trainer", "doctor", "sample/val", "--output", "report")
    assert "<html" in (tmp_path / "report" / "doctor.html").read_text()
