"""fastai for `accuracy.py`: as many epochs of `fit_one_cycle` as fit into a given time.

    accuracy_fastai.py FOLDER MODEL SIZE BATCH_SIZE SECONDS

Runs under another Python, which has fastai and timm:

    python -m venv /tmp/fastai && /tmp/fastai/bin/pip install fastai timm torch==2.14.1 torchvision==0.29.1
"""

from __future__ import annotations

import json
import os
import sys
import time

import timm
from fastai.callback.core import Callback
from fastai.callback.schedule import fit_one_cycle  # noqa: F401  # the import adds the method to Learner
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from fastai.vision.augment import FlipItem, Resize
from fastai.vision.data import ImageDataLoaders


class Clock(Callback):
    """Records validation accuracy and elapsed seconds after each epoch."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.started = time.perf_counter()

    def after_epoch(self) -> None:
        seconds = time.perf_counter() - self.started
        train_loss, _, accuracy_now = (float(each) for each in self.learn.recorder.log[1:4])
        del train_loss  # fastai has no training accuracy
        self.rows.append({"accuracy": accuracy_now, "train_accuracy": float("nan"), "seconds": seconds})


def main() -> None:
    folder, name, size, batch_size, limit = sys.argv[1], sys.argv[2], *(float(each) for each in sys.argv[3:])
    data = ImageDataLoaders.from_folder(
        folder,
        train="train",
        valid="val",
        item_tfms=[Resize(int(size)), FlipItem()],
        bs=int(batch_size),
        num_workers=len(os.sched_getaffinity(0)),
    )

    def make() -> Learner:
        return Learner(data, timm.create_model(name, num_classes=10), CrossEntropyLossFlat(), metrics=accuracy)

    started = time.perf_counter()
    with make().no_bar() as learner, learner.no_logging():
        learner.fit_one_cycle(1)
    epochs = max(1, round(limit / (time.perf_counter() - started)))
    clock = Clock()
    with make().no_bar() as learner, learner.no_logging():
        learner.fit_one_cycle(epochs, cbs=clock)
    print(json.dumps(clock.rows))


if __name__ == "__main__":
    main()
