"""How fast is a whole training, compared with Keras' `fit` and PyTorch with timm?

    .venv/bin/python benchmarks/train.py --torch /tmp/torch/bin/python           about an hour on 2 cores
    .venv/bin/python benchmarks/train.py --rows MobileNet --rounds 3             without PyTorch

End to end: a folder of JPEG files of 500 x 375 pixels (gradients and noise, about 100 KB each), crop and flip, batches
of 32 images of 224 x 224, Adam, from random weights. All three train the same layers: where timm's network of that name
differs (VGG19 ends in layers of 4,096, ResNet50 has its strides in other convolutions), PyTorch's is changed to that of
Keras. Each contestant has its own process, and they train in turn; each round times about `--seconds` of steps, after 4
that are not timed. Left out are validation, and the recomputation of batch normalization before it, which only ours
does: a forward pass of at most 1,024 training images per epoch. Ours runs its own loop with `precision="auto"`. The
others run at their best: Keras in the faster of its policies, PyTorch in bfloat16 autocast with channels last, eager or
compiled, whichever is faster in a first round (`train_torch.py` says how to install it). Prints images per second and,
for each row, our ratio to both: median and spread over rounds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from rounds import Contestant, answer, spread  # isort: skip

HERE = Path(__file__).parent
BATCH_SIZE, NUM_CLASSES, FILES_PER_CLASS = 32, 8, 128  # whole batches only, for all
HEIGHT, WIDTH = 375, 500


class Row(NamedTuple):
    """The names of one network in Model Trainer, Keras and timm."""

    spec: str
    keras: str
    timm: str


ROWS = {
    "VGG19": Row("vgg19", "VGG19", "vgg19"),
    "ResNet50": Row("resnet50", "ResNet50", "resnet50"),
    "MobileNet": Row("mobilenet_v1", "MobileNet", "mobilenetv1_100"),
    "MobileNetV2": Row("mobilenet_v2", "MobileNetV2", "mobilenetv2_100"),
    "EfficientNetB0": Row("efficientnetb0", "EfficientNetB0", "efficientnet_b0"),
}


def make_files(folder: Path) -> None:
    """Writes JPEG files of gradients and noise, as large as those of ImageNet, into class folders."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    gradients = np.stack([x * 255 / WIDTH, y * 255 / HEIGHT, (x + y) * 255 / (HEIGHT + WIDTH)], axis=-1)
    for label in range(NUM_CLASSES):
        (folder / f"class{label}").mkdir(parents=True)
        for number in range(FILES_PER_CLASS):
            pixels = np.clip(gradients + random.normal(0, 12, gradients.shape), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"class{label}" / f"{number:03d}.jpg", quality=90)


def train_ours(folder: str, name: str) -> None:
    """The contestant of this project: the loop of `train`, with its pipeline, metrics and progress line."""
    import model_trainer.quiet_tensorflow  # noqa: F401  # isort: skip

    from absl import logging
    from rich.console import Console

    from model_trainer import ImageFolder, ModelSpec, RandomFlip, RandomResizedCrop, Run, Training
    from model_trainer.training.epochs import train_steps
    from model_trainer.training.loop import make_loop
    from model_trainer.training.metric_accumulator import MetricAccumulator
    from model_trainer.training.non_chief import NonChiefSaver
    from model_trainer.training.prepare import prepare
    from model_trainer.training.run_folder import RunFolder
    from model_trainer.training.signals import StopRequest

    logging.set_verbosity(logging.ERROR)
    run = Run(
        spec=ModelSpec.named(name, target_size=[224, 224, 3]),
        weights=None,
        train_data=ImageFolder(folder),
        augment=(RandomResizedCrop(), RandomFlip()),
        training=Training(epochs=10_000),
        output_dir=tempfile.mkdtemp(),
    )
    prepared = prepare(run)
    print(prepared.precision, file=sys.stderr)
    run_folder = RunFolder.make(run, prepared.description)
    with run_folder.logs() as logs, open("/dev/null", "w") as nowhere:
        loop = make_loop(prepared, run_folder, logs, Console(file=nowhere), StopRequest(), NonChiefSaver())
        batches = iter(prepared.distributed(prepared.train_pipeline.training(epochs=10_000)))
        position = 0

        def steps(count: int) -> None:
            nonlocal position
            while count:
                first = position % loop.steps_per_epoch
                size = min(count, loop.steps_per_epoch - first)
                train_steps(loop, 0, batches, range(first, first + size), MetricAccumulator(run.task.additive_metrics))
                position, count = position + size, count - size

        def train(num_steps: int) -> float:
            steps(4)
            started = time.perf_counter()
            steps(num_steps)
            return time.perf_counter() - started

        train(1)
        answer(train)


def compare(row: Row, folder: Path, torch: str | None, num_rounds: int, seconds: float) -> dict[str, list[float]]:
    """Images per second of each contestant in each round."""
    commands = {
        "ours": [[sys.executable, __file__, "--ours", str(folder), row.spec]],
        "keras": [
            [sys.executable, str(HERE / "train_keras.py"), str(folder), row.keras, policy]
            for policy in ("float32", "mixed_bfloat16")
        ],
        "torch": [
            [torch, str(HERE / "train_torch.py"), str(folder), row.timm, mode] for mode in ("eager", "compile") if torch
        ],
    }
    contestants: dict[str, Contestant] = {}
    steps: dict[str, int] = {}
    for name, variants in commands.items():
        best = 0.0
        for command in variants:
            contestant = Contestant(command)
            rate = 6 * BATCH_SIZE / contestant.seconds(6)
            print(f"    {name} {command[-1]}: {rate:.1f} images/s in a first round", flush=True)
            if rate < best:
                contestant.close()
                continue
            if name in contestants:
                contestants[name].close()
            contestants[name], best = contestant, rate
            steps[name] = max(4, round(seconds * rate / BATCH_SIZE))
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(num_rounds):
        for name in list(contestants) if number % 2 == 0 else list(reversed(contestants)):
            rates[name].append(steps[name] * BATCH_SIZE / contestants[name].seconds(steps[name]))
    for contestant in contestants.values():
        contestant.close()
    return rates


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--torch", help="a Python that has torch, torchvision and timm")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--ours", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ours:
        train_ours(*arguments.ours)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "images"
        make_files(folder)
        for name in arguments.rows:
            print(name, flush=True)
            rates = compare(ROWS[name], folder, arguments.torch, arguments.rounds, arguments.seconds)
            for contestant, each in rates.items():
                print(f"    {contestant:<6} {spread(each, 1)} images/s", flush=True)
            for other in list(rates)[1:]:
                ratios = [ours / theirs for ours, theirs in zip(rates["ours"], rates[other], strict=True)]
                print(f"    ours / {other}: {spread(ratios, 2)}", flush=True)


if __name__ == "__main__":
    main()
