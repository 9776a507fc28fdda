"""How much memory does gradient accumulation save, and how much time does it cost?

    .venv/bin/python benchmarks/accumulation.py    about 2 minutes on 2 cores

One step of MobileNetV2 on 64 images of 160 x 160, float32, SGD, with `accumulation_steps` of 1, 2, 4 and 8, each in its
own process.
Prints by how much the peak memory of the process rose above that before the first step, seconds of the fastest of three
steps, and both as ratios to the values without accumulation.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import model_trainer.quiet_tensorflow  # noqa: F401  # isort: skip

import numpy as np
import tensorflow as tf
from absl import logging
from PIL import Image

from model_trainer import SGD, Hardware, ImageFolder, ModelSpec, Run, Training
from model_trainer.pipeline.batch import Batch
from model_trainer.training.gradients import Clip
from model_trainer.training.prepare import prepare
from model_trainer.training.step import make_train_step

BATCH_SIZE = 64


def measure(folder: Path, accumulation_steps: int) -> tuple[float, float]:
    """`(peak memory in MB, seconds per step)`, as the module docstring explains them."""
    run = Run(
        spec=ModelSpec.named("mobilenet_v2", target_size=[160, 160, 3]),
        weights=None,
        train_data=ImageFolder(folder),
        augment=(),
        training=Training(
            batch_size=BATCH_SIZE,
            precision="float32",
            accumulation_steps=accumulation_steps,
            optimizer=SGD(),
            learning_rate=1e-4,
        ),
        hardware=Hardware(platform="cpu"),
    )
    prepared = prepare(run)
    prepared.optimizer.build(prepared.step_setup.network.model.trainable_variables)
    step = make_train_step(prepared.step_setup, prepared.optimizer, Clip(), average=None)
    batch = Batch(tf.zeros((BATCH_SIZE, 160, 160, 3), tf.uint8), tf.zeros(BATCH_SIZE, tf.int32), tf.ones(BATCH_SIZE))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for number in range(4):
        started = time.perf_counter()
        step(batch, tf.constant(np.int64(number)), BATCH_SIZE, tf.constant(False)).scalars["loss_sum"].numpy()
        seconds.append(time.perf_counter() - started)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000, min(seconds[1:])


def main() -> None:
    if len(sys.argv) > 2:
        logging.set_verbosity(logging.ERROR)
        print(*measure(Path(sys.argv[1]), int(sys.argv[2])))
        return
    with tempfile.TemporaryDirectory() as name:
        for number in range(BATCH_SIZE):
            path = Path(name) / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            Image.new("RGB", (160, 160)).save(path)
        whole: list[float] = []
        for accumulation_steps in (1, 2, 4, 8):
            command = [sys.executable, __file__, name, str(accumulation_steps)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            memory, seconds = map(float, done.stdout.split())
            whole = whole or [memory, seconds]
            print(
                f"accumulation_steps={accumulation_steps}: {memory:6,.0f} MB, ratio {memory / whole[0]:.2f};  "
                f"{seconds:.2f} s per step, ratio {seconds / whole[1]:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
