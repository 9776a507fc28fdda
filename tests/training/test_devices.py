"""Which devices train, and what differs between them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from model_trainer import SGD, Adam, Hardware, Run
from model_trainer.errors import ConfigError
from model_trainer.network.training_copy import StepSeeds
from model_trainer.training.devices import make_strategy
from model_trainer.training.gradients import Clip
from model_trainer.training.prepare import prepare
from model_trainer.training.step import make_train_step
from model_trainer.training.train import Result, train_model

pytestmark = pytest.mark.usefixtures("short_pipeline", "plain_graphs", "eager_steps")

MakeRun = Callable[..., Run]


def losses(result: Result) -> list[float]:
    return [row[name] for row in result.history for name in ("loss", "val_loss") if name in row]


def train_on(run: Run, devices: int) -> Result:
    return train_model(run.changed("hardware", Hardware(devices=devices, platform="cpu")))


def test_clipping_changes_the_training(make_run: MakeRun) -> None:
    # Otherwise the runs of test_agreement.py would agree with clipping that does nothing.
    free = train_on(make_run(network__dropout_rate=0.0), 1)
    for options in ({"clip_norm": 0.05}, {"clip_value": 0.01}):
        clipped = train_on(make_run(network__dropout_rate=0.0, training__optimizer=SGD(momentum=0.9, **options)), 1)
        assert abs(losses(clipped)[-1] - losses(free)[-1]) > 1e-3


@pytest.mark.usefixtures("compiled_steps")
@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_learns_on_two_devices(make_run: MakeRun, precision: str) -> None:
    run = make_run(training__precision=precision, training__optimizer=Adam(), training__learning_rate=0.01)
    values = losses(train_on(run.changed_all({"training.epochs": 3, "val_data": None}), 2))
    assert values[-1] < 0.8 * values[0], values


def test_dropout_masks_differ_between_replicas_steps_and_slices_and_follow_from_the_seed() -> None:
    strategy = make_strategy(Hardware(devices=2, platform="cpu"))

    def masks(seed: int, step: int, slice_index: int = 0) -> list[np.ndarray]:
        seeds = StepSeeds(seed, tf.constant(step, tf.int64))
        with strategy.scope():
            layer = keras.layers.Dropout(0.5)
        layer.seed_generator.next = lambda ordered=True: seeds.layer_seed(0)

        def run_slice() -> tf.Tensor:
            seeds.begin_slice(slice_index)
            return layer(tf.ones((1, 200)), training=True)

        replicas = strategy.run(run_slice)
        return [mask.numpy() for mask in strategy.experimental_local_results(replicas)]

    first, second = masks(0, 0)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(masks(0, 0), [first, second])
    for other in (masks(0, 1), masks(1, 0), masks(0, 0, slice_index=1)):
        assert not np.array_equal(other[0], first)
        assert not np.array_equal(other[0], second)


@pytest.mark.usefixtures("eager_steps")
def test_dropout_of_a_run_follows_from_its_seed_and_step(make_run: MakeRun) -> None:
    """The layers of the training copy really draw from `StepSeeds`, not from Keras' own state."""

    def losses_at(*steps: int, dropout_rate: float = 0.5) -> list[float]:
        hardware = Hardware(devices=2, platform="cpu")
        prepared = prepare(
            make_run(network__dropout_rate=dropout_rate, training__learning_rate=1e-12, hardware=hardware)
        )
        with prepared.step_setup.strategy.scope():
            prepared.optimizer.build(prepared.step_setup.network.model.trainable_variables)
        step = make_train_step(prepared.step_setup, prepared.optimizer, Clip(), None)
        batch = next(iter(prepared.distributed(prepared.train_pipeline.training(1))))
        results = [step(batch, tf.constant(np.int64(number)), 5, tf.constant(False)) for number in steps]
        return [float(result.sums["loss"][0]) for result in results]

    first, second, repeated = losses_at(0, 1, 0)
    assert first == repeated != second
    assert losses_at(0) == [first] != losses_at(0, dropout_rate=0.0)


@pytest.mark.parametrize(
    ("hardware", "message"),
    [
        (Hardware(devices=3), r"`hardware.devices` is 3, but there is one device, the CPU. To split the CPU"),
        (Hardware(devices=0), r"`hardware.devices` should be \"auto\" or at least 1, got 0"),
        (Hardware(platform="gpu"), r"`hardware.platform` is \"gpu\", but TensorFlow finds no GPU"),
    ],
)
def test_devices_that_do_not_exist_are_refused(hardware: Hardware, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_strategy(hardware)


@pytest.mark.slow
def test_the_cpu_is_split_into_logical_devices_in_a_fresh_process() -> None:
    program = (
        "import model_trainer.quiet_tensorflow\n"
        "from model_trainer import Hardware\n"
        "from model_trainer.training.devices import describe_devices, make_strategy\n"
        "print(describe_devices(make_strategy(Hardware(devices=3, platform='cpu'))))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "3 logical devices of the CPU"


def test_a_batch_with_fewer_images_than_devices_is_refused(make_run: MakeRun) -> None:
    with pytest.raises(ConfigError, match=r"`training.batch_size` is 1, fewer than the 2 devices that share it"):
        train_on(make_run(training__batch_size=1), 2)
