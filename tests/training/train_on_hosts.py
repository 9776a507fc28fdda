"""Trains runs on several processes of this machine, one run after another: a script for the tests.

    python train_on_hosts.py NUM_HOSTS JOBS.json

JOBS.json is a list of jobs, each a list of runs as JSON and a plan, which may be empty. Each process is a fork of one
that has imported everything and started nothing. Prints a JSON list of lists of exit codes, one list for each job. The
plan says what happens to the processes, see `PLANS`; with one they also resume. As in the test's own process, images
are read by the exact path alone.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import model_trainer.quiet_tensorflow  # noqa: F401  # isort: skip

import keras
import tensorflow as tf

from model_trainer.cluster.hosts import Hosts
from model_trainer.errors import ModelTrainerError
from model_trainer.pipeline import dataset
from model_trainer.pipeline.fallback import MapFunction
from model_trainer.run.run import Run
from model_trainer.testing import free_addresses
from model_trainer.training import devices, run_folder, train
from model_trainer.training.metric_accumulator import MetricAccumulator
from model_trainer.user_code import Live

run_folder.draw_curves = lambda *arguments: None  # loads matplotlib, in every process
devices.HEARTBEAT_SECONDS = 8  # how long the others wait after one is killed


def by_the_exact_path(start: int, stop: int, fast: MapFunction, exact: MapFunction) -> tf.data.Dataset:
    """As `short_pipeline` of conftest.py."""
    plain = tf.autograph.experimental.do_not_convert
    return tf.data.Dataset.range(start, stop).map(plain(exact), num_parallel_calls=2, deterministic=True)


dataset.map_with_fallback = by_the_exact_path


def at_call(owner: object, name: str, number: int, act: Callable[[], None]) -> None:
    """Calls `act` at the `number`th call of a function."""
    original, calls = getattr(owner, name), []

    def counted(*arguments: object, **options: object) -> object:
        calls.append(1)
        if len(calls) == number:
            act()
        return original(*arguments, **options)

    setattr(owner, name, counted)


def send(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


# What happens: to which process (-1 is the last), at which of its steps of training and validation, and what.
PLANS = {
    "kill": (-1, 12, send(signal.SIGKILL)),
    "stop": (1, 2, send(signal.SIGTERM)),
    "end": (0, -1, lambda: None),
}


def train_as(hosts: Hosts, runs: list[dict[str, object]], plan: str) -> int:
    if plan and PLANS[plan][0] % len(hosts.addresses) == hosts.index:
        at_call(MetricAccumulator, "add", *PLANS[plan][1:])
    for described in runs:
        run = Run.from_dict(described)
        if run.name == "loss_scaling":
            inner = keras.optimizers.SGD(0.1, momentum=0.9)
            run = run.changed("training.optimizer", Live(keras.optimizers.LossScaleOptimizer(inner, 1024.0)))
        try:
            if train.train_model(run, resume=bool(plan), hosts=hosts).stopped:
                return 75
        except ModelTrainerError as error:
            print(f"[host {hosts.index}] {error}", file=sys.stderr)
            return error.exit_code
    return 0


def main() -> None:
    num_hosts, jobs = int(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
    print(json.dumps([codes_of(num_hosts, runs, plan) for runs, plan in jobs]))


def codes_of(num_hosts: int, runs: list[dict[str, object]], plan: str) -> list[int]:
    addresses = free_addresses(num_hosts)
    children = []
    for index in range(num_hosts):
        child = os.fork()
        if child == 0:
            try:
                code = train_as(Hosts(addresses, index, "the test"), runs, plan)
            except BaseException:  # noqa: BLE001  # a fork must not continue as its parent would
                traceback.print_exc()
                code = 1
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


if __name__ == "__main__":
    main()
