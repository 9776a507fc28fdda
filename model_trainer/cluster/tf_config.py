"""Parses TF_CONFIG by the rules of TensorFlow's TFConfigClusterResolver and multi_worker_util."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from model_trainer.cluster.hosts import Hosts, make_hosts
from model_trainer.errors import ConfigError
from model_trainer.messages import nearest

__all__ = ["from_tf_config"]

NAME = "TF_CONFIG"
EXAMPLE = '{"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 0}}'
# Task types of other distribution strategies, with the alternative.
REFUSED = {
    "ps": "synchronous training has no parameter servers. Make every machine a worker.",
    "evaluator": "every machine validates its shard of the data while it trains. Make it a worker, or leave it out.",
}


def from_tf_config(environ: Mapping[str, str]) -> Hosts | None:
    """The chief, if there is one, then the workers; None if the variable is missing or names a single process.

    Raises:
        ConfigError: it is not JSON of the documented form, or names parameter servers or evaluators.
    """
    text = environ.get(NAME, "").strip()
    if not text:
        return None
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"should be JSON such as {EXAMPLE}, but cannot be read: {error}.", NAME) from None
    cluster = _table(_table(config, "the whole").get("cluster", {}), "cluster")
    jobs = {job: _addresses(job, tasks) for job, tasks in cluster.items()}
    jobs = {job: addresses for job, addresses in jobs.items() if addresses}
    task = _table(config.get("task", {}), "task")
    kind = task.get("type")
    for job in [*jobs, kind]:
        if job in REFUSED:
            raise ConfigError(f"has a task of the type {job!r}; {REFUSED[job]}", NAME)
    unknown = [job for job in jobs if job not in ("chief", "worker")]
    if unknown:
        hint = nearest(unknown[0], ("chief", "worker"))
        raise ConfigError(f"has tasks of the type {unknown[0]!r}; known are 'chief' and 'worker'.{hint}", NAME)
    chief, workers = jobs.get("chief", []), jobs.get("worker", [])
    if len(chief) > 1:
        raise ConfigError(f"names {len(chief)} chiefs. Keep one, and make the others workers.", NAME)
    if len(chief) + len(workers) <= 1:
        return None
    if kind not in jobs:
        raise ConfigError(f"should have {' or '.join(map(repr, jobs))} as task.type, got {kind!r}.", NAME)
    index = _index(task.get("index"), len(jobs[kind]))
    rank = index + len(chief) * (kind == "worker")  # TensorFlow counts the chief first
    return make_hosts([*chief, *workers], rank, NAME, field=NAME, index_field=NAME)


def _table(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"should have a table of names and values as {name}, as in {EXAMPLE}, got {value!r}.", NAME)
    return value


def _addresses(job: str, tasks: Any) -> list[str]:
    """A list of addresses, or a dictionary from "0", "1", ... to addresses, which TensorFlow accepts too."""
    if isinstance(tasks, dict):
        numbers = [str(number) for number in range(len(tasks))]
        tasks = [tasks[number] for number in numbers] if tasks.keys() == set(numbers) else None
    if not isinstance(tasks, list) or not all(isinstance(address, str) for address in tasks):
        raise ConfigError(f'should have a list of addresses such as ["a:2222", "b:2222"] as cluster.{job}.', NAME)
    return tasks


def _index(value: Any, count: int) -> int:
    text = str(value)  # some launchers write it as a string
    if isinstance(value, bool) or not (text.isascii() and text.isdigit() and len(text) <= 18 and int(text) < count):
        raise ConfigError(f"should have 0 to {count - 1} as task.index, got {value!r}. It counts from 0.", NAME)
    return int(text)
