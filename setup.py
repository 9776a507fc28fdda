"""Installs Model Trainer; `pip install -e .` for working on it."""

import runpy
from pathlib import Path

from setuptools import find_packages, setup

# importlib_resources: tensorflow-datasets 4.9.10 imports it and does not ask for it.
TFDS = ["tensorflow-datasets>=4.9.10", "importlib_resources"]

VERSION = runpy.run_path(str(Path(__file__).parent / "model_trainer" / "version.py"))["__version__"]

setup(
    name="model-trainer",
    version=VERSION,
    description="Train Keras image models from a short declaration; get .hdf5 files any service can load.",
    license="MIT",
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["model_trainer", "model_trainer.*"]),
    package_data={
        "model_trainer": ["py.typed"],
        "model_trainer.report": ["templates/*"],
        "model_trainer.sources": ["sample/*"],
    },
    entry_points={"console_scripts": ["model-trainer = model_trainer.cli.main:main"]},
    install_requires=[
        "tensorflow>=2.21,<2.22",
        "keras>=3.15.1",
        "numpy",
        "h5py",
        "pillow>=11.3",  # reads AVIF
        "pydantic>=2",
        "typer",
        "rich",
        "absl-py",
        "scikit-learn",
        "matplotlib",
        "jinja2",
    ],
    extras_require={
        "gpu": ["tensorflow[and-cuda]>=2.21,<2.22; sys_platform == 'linux'"],  # CUDA is not to be had elsewhere
        "tfds": TFDS,
        # What is tested must be there.
        "dev": ["pytest", "pytest-timeout", "pytest-xdist", "ruff", "mypy", "hypothesis", "tensorboard", *TFDS],
    },
)
