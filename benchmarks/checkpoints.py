"""What does saving checkpoints cost training?

    .venv/bin/python benchmarks/checkpoints.py            about 4 minutes on 2 cores
    .venv/bin/python benchmarks/checkpoints.py --small    about 2 minutes; only the small network

A small network (MobileNetV2) and one with more than 100 MB of weights and momentum (VGG16), on images of 64 x 64. One
run of `train_model` alternates rounds of steps without saving and with one save right after the other. The difference,
divided by the number of saves, is the cost of a save for training, in wall time and in CPU time; divided by the default
interval between two saves it is the fraction of training time that saving takes. The target is at most 2 %. The same is
measured for `keras.callbacks.BackupAndRestore` in `model.fit`, which saves the same variables while training waits,
without a sync and without hashes. Prints medians over pairs of rounds, and the spread.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import model_trainer.quiet_tensorflow  # noqa: F401  # isort: skip

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from model_trainer import SGD, Adam, Constant, Manifest, ModelSpec, Run, Training
from model_trainer.sources.sample import unpack_sample
from model_trainer.training.checkpoints import saver as saving
from model_trainer.training.checkpoints.saver import Saver
from model_trainer.training.checkpoints.store import Checkpoint
from model_trainer.training.train import train_model

BATCH_SIZE, SIZE = 16, (64, 64, 3)
SECONDS_OF_ROUND = 4.0
WARM_UP_STEPS = 6


@dataclass
class Clock:
    """Times rounds of steps; checkpoints are saved in every second round.

    Attributes:
        rounds: number of pairs of rounds.
        steps: steps per round, determined during the warm-up.
        wall, cpu: wall and CPU seconds of each round that has ended.
        saves: number of saves begun in each saving round.
    """

    rounds: int
    steps: int = 0
    count: int = 0
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    saves: list[int] = field(default_factory=list)
    started: tuple[float, float] = (0.0, 0.0)

    @property
    def is_saving(self) -> bool:
        return len(self.wall) % 2 == 1 and not self.is_over

    def saved(self) -> None:
        """Records that a save was begun."""
        pair = len(self.wall) // 2
        self.saves += [0] * (pair + 1 - len(self.saves))
        self.saves[pair] += 1

    @property
    def is_over(self) -> bool:
        return len(self.wall) >= 2 * self.rounds

    def tick(self, wait: Callable[[], None]) -> None:
        """Called after each step; calls `wait` before it takes the time at the end of a round."""
        self.count += 1
        done = self.count - WARM_UP_STEPS
        now = (time.perf_counter(), time.process_time())
        if done == 0:
            self.steps = max(4, round(SECONDS_OF_ROUND / ((now[0] - self.started[0]) / (WARM_UP_STEPS - 2))))
            self.started = now
        elif done == 2 - WARM_UP_STEPS:  # the first steps trace
            self.started = now
        elif done > 0 and done % self.steps == 0 and not self.is_over:
            wait()
            now = (time.perf_counter(), time.process_time())
            self.wall.append(now[0] - self.started[0])
            self.cpu.append(now[1] - self.started[1])
            self.started = now

    def costs(self) -> tuple[list[float], list[float], float]:
        """Wall and CPU seconds per save in each pair of rounds, and the number of processors in use without saving."""

        def per_save(seconds: list[float]) -> list[float]:
            return [(b - a) / n for a, b, n in zip(seconds[::2], seconds[1::2], self.saves, strict=True)]

        processors = statistics.median(c / w for c, w in zip(self.cpu[::2], self.wall[::2], strict=True))
        return per_save(self.wall), per_save(self.cpu), processors


class Stopper(keras.callbacks.Callback):
    """Ticks the clock after each step, and ends the training after the last round."""

    def __init__(self, clock: Clock, wait: Callable[[], None], stop: Callable[[], None]) -> None:
        super().__init__()
        self.clock, self.wait, self.stop = clock, wait, stop

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        self.clock.tick(self.wait)
        if self.clock.is_over:
            self.stop()


class AllRoundsOver(Exception):
    """The last round has ended."""


def ours(folder: Path, run: Run, rounds: int) -> tuple[Clock, list[float], list[float], int]:
    """The clock; seconds of each save; seconds for which each save blocked training; bytes of a checkpoint."""
    clock = Clock(rounds)
    savers: list[Saver] = []
    begun: list[float] = []
    whole: list[float] = []
    blocked: list[float] = []
    save_when_due, write = Saver.save_when_due, saving.write_checkpoint

    def save_if_idle(saver: Saver, capture: Callable[[], Checkpoint]) -> None:
        savers[:] = [saver]
        if clock.is_saving and len(whole) == len(begun):
            begun.append(time.perf_counter())
            saver.save(capture)
            blocked.append(time.perf_counter() - begun[-1])
            clock.saved()

    def timed_write(target: Path, checkpoint: Checkpoint) -> Path:
        path = write(target, checkpoint)
        whole.append(time.perf_counter() - begun[-1])
        return path

    def stop() -> None:
        raise AllRoundsOver

    Saver.save_when_due, saving.write_checkpoint = save_if_idle, timed_write
    try:
        train_model(run.changed("callbacks", (Stopper(clock, lambda: [s.wait() for s in savers], stop),)))
    except AllRoundsOver:
        pass
    finally:
        Saver.save_when_due, saving.write_checkpoint = save_when_due, write
    (newest, *_) = sorted(folder.rglob("arrays.bin"), reverse=True)
    return clock, whole, blocked, newest.stat().st_size


def train_with_keras(folder: Path, run: Run, rounds: int, every: int) -> Clock:
    """Trains the same network in `model.fit`, in every second round with a backup after each `every` steps."""
    from model_trainer.network.build import build_network

    model = build_network(run.spec, run.network, run.task, 10).model
    optimizer = keras.optimizers.Adam() if isinstance(run.training.optimizer, Adam) else keras.optimizers.SGD(0.01, 0.9)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    clock = Clock(rounds)

    class Backup(keras.callbacks.BackupAndRestore):
        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            if clock.is_saving and batch % every == 0:
                self.save_freq = 1
                super().on_train_batch_end(batch, logs)
                self.save_freq = 10**9
                clock.saved()

    def stop() -> None:
        model.stop_training = True

    random = np.random.default_rng(0)
    batch = (random.uniform(-1, 1, (BATCH_SIZE, *SIZE)).astype(np.float32), random.integers(0, 10, BATCH_SIZE))
    batches = tf.data.Dataset.from_tensors(batch).repeat()
    callbacks = [Backup(folder / "backup", save_freq=10**9), Stopper(clock, lambda: None, stop)]
    model.fit(batches, shuffle=False, steps_per_epoch=10**6, epochs=1, callbacks=callbacks, verbose=0)
    return clock


def spread(values: list[float], format_: Callable[[float], str]) -> str:
    return f"{format_(statistics.median(values))} ({format_(min(values))} to {format_(max(values))})"


seconds = functools.partial("{:.3f} s".format)
percent = "{:.2%}".format


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    logging.set_verbosity(logging.ERROR)
    networks = {"MobileNetV2, Adam": ("mobilenet_v2.MobileNetV2", Adam())}
    if not arguments.small:
        networks["VGG16, SGD with momentum"] = ("vgg16.VGG16", SGD(momentum=0.9))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        unpack_sample(folder / "sample")
        rows = [f"{path},{path.parent.name}" for path in sorted((folder / "sample" / "train").glob("*/*"))]
        (folder / "train.csv").write_text("\n".join(["filename,label", *(rows * 20)]))  # a practically endless epoch
        for title, (class_, optimizer) in networks.items():
            run = Run(
                name=title.split(",")[0],
                spec=ModelSpec(**{"class": f"keras.applications.{class_}", "target_size": list(SIZE)}),
                weights=None,
                train_data=Manifest(folder / "train.csv"),
                training=Training(
                    batch_size=BATCH_SIZE,
                    optimizer=optimizer,
                    schedule=Constant(),
                    learning_rate=1e-4,
                    precision="float32",
                ),
                output_dir=str(folder / title),
            )
            clock, whole, blocked, num_bytes = ours(folder / title, run, arguments.rounds)
            wall, cpu, processors = clock.costs()
            interval = statistics.median(whole) * (1 + 1 / saving.MAX_TIME_FRACTION)
            print(f"\n{title}: {num_bytes / 1e6:.0f} MB; rounds of {clock.steps} steps, {sum(clock.saves)} saves")
            print(f"  a save takes {spread(whole, seconds)}, so the next begins {interval:.0f} s later")
            print(f"  a save blocks training for    {spread(blocked, seconds)}")
            print(f"  it costs, in wall time        {spread(wall, seconds)}")
            print(f"  it costs, in CPU time         {spread(cpu, seconds)}")
            print(f"  fraction of the wall time     {spread([each / interval for each in wall], percent)}")
            print(f"  fraction of the CPU time      {spread([c / (interval * processors) for c in cpu], percent)}")
            every = max(1, round(clock.steps / statistics.median(clock.saves)))
            theirs = train_with_keras(folder / title, run, arguments.rounds, every).costs()[0]
            ratio = statistics.median(theirs) / max(statistics.median(wall), 1e-9)
            print(f"  BackupAndRestore costs        {spread(theirs, seconds)} in wall time, {ratio:.1f} times as much")


if __name__ == "__main__":
    main()
