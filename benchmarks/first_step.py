"""How long does it take from the command to the end of the first step?

    .venv/bin/python benchmarks/first_step.py                             about 3 minutes on 2 cores
    .venv/bin/python benchmarks/first_step.py --rows vgg19 --rounds 5

For CPUs. Times whole processes in turn: a run of this project, and a script with Keras' `fit` that trains the same
network on the same images of the sample, 64 x 64, in batches of 32, in the precision that is faster for it here; ours
also flips images. Prints seconds, and the ratio: median and spread over rounds. The first round, which reads from the
disk, is left out.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rounds import spread  # isort: skip

ROWS = {"vgg19": "VGG19", "efficientnetb0": "EfficientNetB0", "mobilenet_v2": "MobileNetV2"}

OURS = """
import os, sys, keras
from model_trainer import *
class End(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        os._exit(0)
name, folder = sys.argv[1:]
train(Run(spec=ModelSpec.named(name, target_size=[64, 64, 3]), weights=None, train_data=ImageFolder(folder + "/train"),
          val_data=ImageFolder(folder + "/val"), augment=(RandomFlip(),), callbacks=(End(),),
          output_dir=folder + "/output"))
"""
KERAS = """
import os, sys, keras
class End(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        os._exit(0)
name, folder = sys.argv[1:]
keras.mixed_precision.set_global_policy(os.environ["POLICY"])
train, val = (
    keras.utils.image_dataset_from_directory(f"{folder}/{part}", image_size=(64, 64), batch_size=32, verbose=False)
    for part in ("train", "val")
)
train, val = (each.map(lambda x, y: (x / 127.5 - 1.0, y)) for each in (train, val))
backbone = getattr(keras.applications, name)(include_top=False, weights=None, pooling="avg", input_shape=(64, 64, 3))
outputs = keras.layers.Dense(10, activation="softmax", dtype="float32")(backbone.output)
model = keras.Model(backbone.input, outputs)
model.compile(keras.optimizers.Adam(1e-4), "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(train, validation_data=val, verbose=0, callbacks=[End()])
"""


def seconds(code: str, name: str, folder: str, **environment: str) -> float:
    started = time.perf_counter()
    command = [sys.executable, "-c", code, name, folder]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    from model_trainer.sources.sample import unpack_sample

    with tempfile.TemporaryDirectory() as temporary:
        folder = str(unpack_sample(Path(temporary) / "sample"))
        for name in arguments.rows:
            times: dict[str, list[float]] = {"ours": [], "float32": [], "mixed_bfloat16": []}
            for number in range(arguments.rounds + 1):
                for who in list(times) if number % 2 else reversed(list(times)):
                    is_ours = who == "ours"
                    duration = seconds(OURS if is_ours else KERAS, name if is_ours else ROWS[name], folder, POLICY=who)
                    if number:
                        times[who].append(duration)
            best = min(("float32", "mixed_bfloat16"), key=lambda who: statistics.median(times[who]))
            print(f"{name}\n    ours   {spread(times['ours'], 2)} s\n    keras  {spread(times[best], 2)} s ({best})")
            ratios = [ours / theirs for ours, theirs in zip(times["ours"], times[best], strict=True)]
            print(f"    ours / keras: {spread(ratios, 2)}", flush=True)


if __name__ == "__main__":
    main()
