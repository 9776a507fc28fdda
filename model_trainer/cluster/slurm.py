"""The tasks of one `srun`, from Slurm's environment variables.

An sbatch script and the shell of salloc have an allocation but are a single process; only `srun` starts a job step.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from model_trainer.cluster.hosts import Hosts, make_hosts, parse_integer
from model_trainer.errors import ConfigError

__all__ = ["expand_counts", "expand_nodes", "first_port", "from_slurm", "is_step"]

# Below Linux' ephemeral ports, which begin at 32768, there is room for 1000 jobs with 16 tasks on each node.
LOWEST_PORT, JOBS, TASKS = 15_000, 1_000, 16


def is_step(environ: Mapping[str, str]) -> bool:
    """Whether `srun` started this process. An sbatch script has SLURM_PROCID as well, but no job step."""
    return bool(environ.get("SLURM_PROCID")) and bool(environ.get("SLURM_STEP_ID") or environ.get("SLURM_STEPID"))


def from_slurm(environ: Mapping[str, str]) -> Hosts | None:
    """The tasks of this job step, in the order of its nodes; None outside `srun` or with a single task.

    This task's index follows from its node and its local ID there, not from SLURM_PROCID: `--distribution=cyclic`
    numbers tasks round-robin over the nodes, and a task does not see how the others are numbered.

    Raises:
        ConfigError: variables are missing, malformed, or contradict each other.
    """
    if not is_step(environ):
        return None
    count = parse_integer(environ, "SLURM_STEP_NUM_TASKS") or parse_integer(environ, "SLURM_NTASKS")
    if count is None or count == 1:
        return None
    nodes_name = _present(environ, "SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST")
    nodes = expand_nodes(environ[nodes_name], nodes_name)
    tasks = _tasks_per_node(environ, count, len(nodes))
    port = first_port(parse_integer(environ, _present(environ, "SLURM_JOB_ID", "SLURM_JOBID")) or 0, _step(environ))
    addresses = [f"{node}:{port + local}" for node, number in zip(nodes, tasks, strict=True) for local in range(number)]
    node, local_id = parse_integer(environ, "SLURM_NODEID"), parse_integer(environ, "SLURM_LOCALID")
    if node is not None and local_id is not None and node < len(nodes) and local_id < tasks[node]:
        index = sum(tasks[:node]) + local_id
    else:
        index = parse_integer(environ, "SLURM_PROCID") or 0
    return make_hosts(addresses, index, "Slurm", field=nodes_name, index_field="SLURM_PROCID")


def first_port(job: int, step: int) -> int:
    """The port of the first task on each node, 15000 to 30984; further tasks on the node use the following ports.

    Jobs that share a node have different ports unless their IDs differ by a multiple of 1000; so do the concurrent
    steps of a job.
    """
    return LOWEST_PORT + (job + 331 * step) % JOBS * TASKS


def expand_nodes(text: str, field: str = "SLURM_STEP_NODELIST") -> list[str]:
    """Expands a list of nodes in Slurm's notation.

    Raises:
        ConfigError: the list is malformed; the message names `field`.

    Example:
        >>> expand_nodes("gpu[01-03,07],login1")
        ['gpu01', 'gpu02', 'gpu03', 'gpu07', 'login1']
    """
    entries = re.findall(r"(?:[^,\[\]]|\[[^\[\]]*\])+", text)
    names = [name for entry in entries for name in _expand_entry(entry, text, field)]
    if not names or ",".join(entries) != text:
        raise _unreadable(text, field)
    return names


def expand_counts(text: str, field: str = "SLURM_STEP_TASKS_PER_NODE") -> list[int]:
    """Expands the numbers of tasks on each node in Slurm's notation.

    Raises:
        ConfigError: the list is malformed; the message names `field`.

    Example:
        >>> expand_counts("2(x3),1")
        [2, 2, 2, 1]
    """
    counts: list[int] = []
    for entry in text.split(","):
        match = re.fullmatch(r"([0-9]{1,6})(?:\(x([0-9]{1,6})\))?", entry.strip())
        if match is None:
            raise ConfigError(f'should be numbers of tasks such as "2(x3),1", got {text!r}.', field)
        counts += [int(match[1])] * int(match[2] or 1)
    return counts


def _expand_entry(entry: str, text: str, field: str) -> Iterator[str]:
    """Yields every name of one entry, which may have several brackets, as in "rack[1-2]n[01-16]"."""
    before, bracket, rest = entry.partition("[")
    if not bracket:
        yield entry
        return
    inside, _, after = rest.partition("]")
    for numbers in inside.split(","):
        match = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", numbers)
        if match is None:
            raise _unreadable(text, field)
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last < first + 100_000:  # more machines than any cluster has, so probably a typo
            raise _unreadable(text, field)
        for number in range(first, last + 1):
            for ending in _expand_entry(after, text, field):
                yield f"{before}{number:0{len(match[1])}}{ending}"


def _tasks_per_node(environ: Mapping[str, str], count: int, num_nodes: int) -> list[int]:
    name = "SLURM_STEP_TASKS_PER_NODE" if environ.get("SLURM_STEP_TASKS_PER_NODE") else "SLURM_TASKS_PER_NODE"
    if environ.get(name):
        tasks = expand_counts(environ[name], name)
    elif count % num_nodes == 0:
        tasks = [count // num_nodes] * num_nodes
    else:
        raise ConfigError(
            f"is missing; it tells how the {count} tasks are distributed over {num_nodes} nodes.",
            "SLURM_STEP_TASKS_PER_NODE",
        )
    if len(tasks) != num_nodes or sum(tasks) != count:
        raise ConfigError(
            f"should distribute {count} tasks over {num_nodes} nodes, got {environ.get(name)!r}. Start training with "
            "srun itself, inside one sbatch or salloc.",
            name,
        )
    return tasks


def _present(environ: Mapping[str, str], name: str, older: str) -> str:
    for each in (name, older):
        if environ.get(each):
            return each
    raise ConfigError("is missing in this Slurm job step. Start training with srun, or use --hosts.", name)


def _step(environ: Mapping[str, str]) -> int:
    return parse_integer(environ, "SLURM_STEP_ID") or parse_integer(environ, "SLURM_STEPID") or 0


def _unreadable(text: str, field: str) -> ConfigError:
    return ConfigError(f'should be a list of nodes such as "gpu[01-03,07],login1", got {text!r}.', field)
