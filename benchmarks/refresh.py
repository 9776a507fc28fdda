"""How long does it take to recompute the moving statistics of batch normalization at the end of each epoch?

    .venv/bin/python benchmarks/refresh.py                         about 5 minutes on 2 cores
    .venv/bin/python benchmarks/refresh.py --spec resnet50 --images 1024

Trains on the sample twice in turn, with `Network(batch_norm_momentum="auto")` and with the same momentum as a number,
which recomputes nothing. Prints the ratios of the times of an epoch in the middle, and of the last one, after which
more images go through the network: median and spread over rounds. The first epoch, which traces, is left out; so is
validation.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import model_trainer.quiet_tensorflow  # noqa: F401  # isort: skip

from model_trainer import ImageFolder, ModelSpec, Network, RandomFlip, Run, Training, train
from model_trainer.sources.sample import unpack_sample

from rounds import spread  # isort: skip

EPOCHS = 4


def seconds_of_epochs(run: Run, momentum: str | float) -> tuple[float, float]:
    """The median seconds of the middle epochs, and the seconds of the last epoch."""
    with tempfile.TemporaryDirectory() as folder:
        network = Network(batch_norm_momentum=momentum)
        history = train(run.changed("network", network).changed("output_dir", folder)).history
    seconds = [row["seconds"] for row in history]
    return statistics.median(seconds[1:-1]), seconds[-1]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--spec", default="mobilenet_v2")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Run(
            spec=ModelSpec.named(arguments.spec, target_size=[arguments.size, arguments.size, 3]),
            weights=None,
            train_data=ImageFolder(unpack_sample(Path(folder) / "sample") / "train").take(arguments.images, seed=0),
            augment=(RandomFlip(),),
            training=Training(epochs=EPOCHS),
        )
        middle, last = [], []
        for _ in range(arguments.rounds):
            (with_middle, with_last), (middle_without, last_without) = (
                seconds_of_epochs(run, momentum) for momentum in ("auto", 0.88)
            )
            middle.append(with_middle / middle_without)
            last.append(with_last / last_without)
    print(f"{arguments.spec}, {arguments.images} images: an epoch takes {spread(middle, 3)} times as long,")
    print(f"the last one {spread(last, 3)} times")


if __name__ == "__main__":
    main()
