"""One model of each family of the table takes steps: on one and two devices, in float32 and mixed precision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from model_trainer import SGD, Hardware, ImageFolder, ModelSpec, Network, Run
from model_trainer.specs import TABLE
from model_trainer.training.gradients import Clip
from model_trainer.training.prepare import prepare
from model_trainer.training.step import make_train_step

pytestmark = pytest.mark.usefixtures("short_pipeline")

MakeRun = Callable[..., Run]

# The smallest of each family, where its class allows it with fewer channels.
FAMILIES = {
    "convnext_tiny": {}, "densenet_121": {}, "efficientnetb0": {}, "efficientnetv2b0": {}, "inception_resnet_v2": {},
    "inception_v3": {}, "mobilenet_v1": {}, "mobilenet_v2": {"alpha": 0.35}, "mobilenet_v3_small": {},
    "nasnet_mobile": {}, "resnet50": {}, "resnet50_v2": {}, "vgg16": {}, "xception": {},
}  # fmt: skip
# With -m slow only: they have many layers, or the same kinds of layers as another, or as the networks of other tests.
SLOW = (
    "densenet_121",
    "efficientnetv2b0",
    "inception_resnet_v2",
    "inception_v3",
    "mobilenet_v1",
    "mobilenet_v2",
    "nasnet_mobile",
    "resnet50",
    "resnet50_v2",
    "vgg16",
    "xception",
)
COMBINATIONS = [(1, "float32"), (2, "mixed_bfloat16"), (1, "mixed_bfloat16"), (2, "float32")]


def check_steps(make_run: MakeRun, colors: Path, name: str, devices: int, precision: str) -> None:
    """Asserts that the loss of one batch, repeated, falls by a twentieth, and that the whole network learns.

    All images are of one class: the features of a random network with batch normalization are so sensitive that the
    loss of several classes may rise after a step that is right, in bfloat16 above all. That of one class may, too, in
    the first steps (MobileNetV3, in `train_on_batch` of Keras as well).
    """
    least = max(32, TABLE[name].minimum_size)
    run = make_run(
        spec=ModelSpec.named(name, target_size=[least, least, 3], kwargs=FAMILIES[name]),
        train_data=ImageFolder(colors / "train").take(4),
        network=Network(dropout_rate=0.0),
        training__optimizer=SGD(),
        training__learning_rate=0.005,
        training__precision=precision,
        training__synchronized_batch_norm=devices > 1,  # over two images alone, normalization leaves nothing but signs
        hardware=Hardware(platform="cpu", devices=devices),
    )
    prepared = prepare(run)
    model = prepared.step_setup.network.model
    with prepared.step_setup.strategy.scope():
        prepared.optimizer.build(model.trainable_variables)
    step = make_train_step(prepared.step_setup, prepared.optimizer, Clip(), None)
    batch = next(iter(prepared.distributed(prepared.train_pipeline.training(1))))
    before = [np.array(variable) for variable in model.trainable_variables]
    losses = []
    while len(losses) < 3 or (len(losses) < 20 and not losses[-1] < 0.95 * losses[0]):
        # Masks of dropout follow from the number of the step, so that with the same one only the weights differ.
        loss, count = step(batch, tf.constant(np.int64(0)), 4, tf.constant(False)).sums["loss"].numpy()
        losses.append(loss / count)
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.95 * losses[0], losses
    after = [np.array(variable) for variable in model.trainable_variables]
    assert all(np.isfinite(variable).all() for variable in after)
    changed = [(old != new).any() for old, new in zip(before, after, strict=True)]
    assert np.mean(changed) > 0.8, f"{len(changed) - sum(changed)} of {len(changed)} variables never change"


def cases() -> list[Any]:
    """The first combination of three families always; all others with -m slow."""
    return [
        pytest.param(name, *each, marks=[] if number < (name not in SLOW) else [pytest.mark.slow])
        for name in FAMILIES
        for number, each in enumerate(COMBINATIONS)
    ]


@pytest.mark.usefixtures("eager_steps")
@pytest.mark.parametrize(("name", "devices", "precision"), cases())
def test_every_family_learns_a_batch(make_run: MakeRun, colors: Path, name: str, devices: int, precision: str) -> None:
    check_steps(make_run, colors, name, devices, precision)


@pytest.mark.slow
@pytest.mark.parametrize(("devices", "precision"), COMBINATIONS)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_learns_a_batch_in_a_compiled_step(
    make_run: MakeRun, colors: Path, name: str, devices: int, precision: str
) -> None:
    check_steps(make_run, colors, name, devices, precision)
