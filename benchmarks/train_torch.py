"""PyTorch with timm for `train.py`: bfloat16 autocast, channels last, a `DataLoader` of torchvision, fused Adam.

    train_torch.py FOLDER MODEL eager|compile

Runs under another Python, which has torch, torchvision and timm:

    python -m venv /tmp/torch && /tmp/torch/bin/pip install torch torchvision timm
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import timm
import torch
import torchvision
from torchvision.transforms import v2

from rounds import answer  # isort: skip

WARM_UP = 4
WORKERS = len(os.sched_getaffinity(0))


class Folder(torch.utils.data.Dataset):
    """Images in one folder per class; an item is uint8 `(3, 224, 224)`, after crop and flip, and the class index."""

    def __init__(self, folder: str) -> None:
        classes = sorted(path for path in Path(folder).iterdir() if path.is_dir())
        self.files = [(str(file), number) for number, each in enumerate(classes) for file in sorted(each.iterdir())]
        self.change = v2.Compose([v2.RandomResizedCrop(224, antialias=True), v2.RandomHorizontalFlip()])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path, label = self.files[index]
        return self.change(torchvision.io.read_image(path, torchvision.io.ImageReadMode.RGB)), label


def make_as_in_keras(name: str) -> torch.nn.Module:
    """timm's network, changed to the operations of the network in `keras.applications`."""
    model = timm.create_model(name, num_classes=10)
    if name == "vgg19":  # without the two layers of 4,096
        return torch.nn.Sequential(
            model.features, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(512, 10)
        )
    if name == "resnet50":  # strides in the first convolution of a stage, as in the paper, not in the second
        for stage in (model.layer2, model.layer3, model.layer4):
            stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    return model


def main() -> None:
    folder, name, mode = sys.argv[1:]
    torch.manual_seed(0)
    loader = torch.utils.data.DataLoader(
        Folder(folder),
        32,
        shuffle=True,
        num_workers=WORKERS,
        persistent_workers=True,
        prefetch_factor=2,
        drop_last=True,
    )
    model = make_as_in_keras(name).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    loss_of = torch.nn.CrossEntropyLoss()
    compute = torch.compile(model) if mode == "compile" else model

    def forever() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        while True:
            yield from loader

    batches = forever()

    def step() -> torch.Tensor:
        images, labels = next(batches)
        images = images.to(memory_format=torch.channels_last).float().div_(127.5).sub_(1.0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of(compute(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    def train(num_steps: int) -> float:
        for _ in range(WARM_UP):
            step()
        started = time.perf_counter()
        for _ in range(num_steps):
            loss = step()
        float(loss)
        return time.perf_counter() - started

    train(1)
    answer(train)


if __name__ == "__main__":
    main()
