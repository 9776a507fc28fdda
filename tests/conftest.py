"""What all tests share: four logical CPU devices, drawn images, and a run of seconds."""
# ruff: noqa: E402 (settings come first that TensorFlow reads when it is imported)

from __future__ import annotations

import functools
import gc
import os
import signal
import warnings

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the same devices on every machine; tests marked gpu start processes
os.environ["MODEL_TRAINER_CONFIG"] = os.devnull  # not the configuration of the user who runs the tests
os.environ["KERAS_BACKEND"] = "tensorflow"
# Networks are small, and threads that wait for work take a tenth of all time.
os.environ["TF_NUM_INTRAOP_THREADS"] = "1"

# A collection of garbage searches half a million objects of TensorFlow: a twentieth of all time.
gc.disable()

import model_trainer.quiet_tensorflow  # noqa: F401  # isort: skip

from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from model_trainer import (
    SGD,
    Classification,
    Constant,
    Hardware,
    ImageFolder,
    ModelSpec,
    Run,
    Training,
    api,
)
from model_trainer.cpu_cores import num_usable_cores
from model_trainer.pipeline import dataset
from model_trainer.pipeline.fallback import MapFunction, map_with_fallback
from model_trainer.pipeline.image import exact_image
from model_trainer.pipeline.view import View
from model_trainer.training import run_folder

# Before TensorFlow starts, so that the multi-device path is tested on every machine.
_CPU = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(_CPU, [tf.config.LogicalDeviceConfiguration()] * 4)
tf.config.list_logical_devices()  # starts TensorFlow, so that no test can split the CPU differently

gc.freeze()
gc.set_threshold(10_000, 10, 10)
gc.enable()

# The same examples in each run and no deadline, so that no test depends on chance or on the load of the machine.
hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True)
hypothesis.settings.load_profile("repeatable")

# A shell lets its background jobs ignore Ctrl-C, and the processes of the tests would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # likewise with `nohup`

# Files that take long come first, those of LONG before all; at the end one process would wait for the others.
LONG = (
    "test_killed.py", "test_agreement.py", "test_machines.py", "test_nothing_grows.py", "test_parity.py",
    "test_fuzz.py",
)  # fmt: skip
LONG_FOLDERS = ("training", "cli", "model_files", "serving")


def pytest_xdist_auto_num_workers() -> int:
    """With `-n auto`: one process more than cores, since some tests wait for servers; each takes up to 4 GB."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(num_usable_cores() + 1, int(memory / 4e9)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: (item.path.name not in LONG, not {*LONG_FOLDERS} & {*item.path.parts}))
    for item in items:
        # Tests with one of these fixtures build a run, its pipeline or an object store server, which takes most time.
        if {"declare_run", "short_pipeline", "weed"} & {*getattr(item, "fixturenames", ())}:
            item.add_marker("long")


COLORS = {"blue": (30, 40, 220), "green": (40, 200, 50), "red": (220, 30, 40)}


def draw_folder(folder: Path, num_images: int, *, size: tuple[int, int] = (32, 32), seed: int = 0) -> Path:
    """Draws `folder/CLASS/N.png`: noise around the class's color, `num_images` for each of three classes."""
    random = np.random.default_rng(seed)
    for name, color in COLORS.items():
        (folder / name).mkdir(parents=True)
        for number in range(num_images):
            noise = random.integers(-30, 31, (*size, 3))
            pixels = np.clip(np.array(color) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests start with an empty cache, which is not that of the user."""
    os.environ["MODEL_TRAINER_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session", autouse=True)
def _no_curves() -> None:
    """Drawing them takes a fifth of a small run; the tests of curves restore `history.draw_curves`."""
    run_folder.draw_curves = lambda *arguments: None


@pytest.fixture(scope="session", autouse=True)
def _no_report() -> None:
    """`train` would evaluate and report each small run; tests/report calls `report_run` itself."""
    api.report_run = lambda *arguments: None


@pytest.fixture(scope="module")
def short_pipeline() -> Iterator[None]:
    """Images are read by the exact path alone: to build the pipelines takes most of the time of a small run.

    Order, sampling, augmentation and the shards of devices and hosts are as in a user's run. The graph that reads an
    image is the same one in all pipelines of a spec.

    For modules about what comes after the pipeline. `whole_pipeline` undoes it for one test.
    """
    plain = tf.autograph.experimental.do_not_convert
    as_built = tf.data.Options()
    as_built.experimental_optimization.apply_default_optimizations = False

    def by_the_exact_path(start: int, stop: int, fast: MapFunction, exact: MapFunction) -> tf.data.Dataset:
        images = tf.data.Dataset.range(start, stop).map(plain(exact), num_parallel_calls=2, deterministic=True)
        return images.with_options(as_built)

    with (
        mock.patch.object(dataset, "map_with_fallback", by_the_exact_path),
        mock.patch.object(dataset, "exact_image", _exact_image),
    ):
        yield


def _exact_image(
    data: tf.Tensor, view: View, *, region: tf.Tensor | None = None, seed: tf.Tensor | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    if view.crop is not None or region is not None:
        return exact_image(data, view, region=region, seed=seed)
    image, readable = _graph_of(view.spec.model_dump_json(by_alias=True))(data)
    return image, readable


@functools.cache
def _graph_of(spec: str) -> Callable[[tf.Tensor], list[tf.Tensor]]:
    view = View(ModelSpec.model_validate_json(spec))
    with tf.init_scope():
        read = tf.function(lambda data: exact_image(data, view), autograph=False)
        return read.get_concrete_function(tf.TensorSpec((), tf.string))


@pytest.fixture(scope="module")
def plain_graphs() -> Iterator[None]:
    """Graphs run as they are traced: TensorFlow's optimizer of graphs takes a tenth of a small run.

    For modules about what a run does around its steps.
    """
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    yield
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})


@pytest.fixture
def whole_pipeline(short_pipeline: None) -> Iterator[None]:
    """In a module with `short_pipeline`: images are read as in a user's run."""
    with (
        mock.patch.object(dataset, "map_with_fallback", map_with_fallback),
        mock.patch.object(dataset, "exact_image", exact_image),
    ):
        yield


@pytest.fixture(scope="session")
def colors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `train/` (3 x 5 images) and `val/` (3 x 3 images); do not change it."""
    folder = tmp_path_factory.mktemp("colors")
    draw_folder(folder / "train", 5)
    draw_folder(folder / "val", 3, seed=1)
    return folder


@pytest.fixture
def make_run(declare_run: Callable[..., Run], tmp_path: Path) -> Callable[..., Run]:
    """As `declare_run`, with an output folder of the test's own."""
    return functools.partial(declare_run, output_dir=str(tmp_path / "output"))


@pytest.fixture(scope="session")
def declare_run(colors: Path) -> Callable[..., Run]:
    """Makes a run over `colors` that trains in seconds; options are dotted names with `__` for the dot."""

    def make(**changes: object) -> Run:
        run = Run(
            name="test",
            spec=ModelSpec(
                **{
                    "class": "model_trainer.testing.small_backbone",
                    "preprocess_func": "between_plus_minus_1",
                    "target_size": [16, 16, 3],
                }
            ),
            weights=None,
            train_data=ImageFolder(colors / "train"),
            val_data=ImageFolder(colors / "val"),
            augment=(),
            task=Classification(),
            training=Training(
                epochs=1,
                batch_size=4,
                learning_rate=0.05,
                optimizer=SGD(momentum=0.9),
                schedule=Constant(),
                precision="float32",
            ),
            hardware=Hardware(platform="cpu"),
        )
        for name, value in changes.items():
            run = run.changed(name.replace("__", "."), value)
        return run

    return make


@pytest.fixture
def eager_steps() -> Iterator[None]:
    """Steps run operation by operation: to compile them takes half the time of a small run, and more of a large one.

    For modules about what a run does around its steps. `compiled_steps` undoes it for one test.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Even though the `tf.config.experimental_run_functions_eagerly`")
        tf.config.run_functions_eagerly(True)
        yield
        tf.config.run_functions_eagerly(False)


@pytest.fixture
def compiled_steps(eager_steps: None) -> None:
    """In a module with `eager_steps`: steps are compiled as in a user's run."""
    tf.config.run_functions_eagerly(False)


@pytest.fixture(name="draw_folder")
def _draw_folder() -> Callable[..., Path]:
    return draw_folder
