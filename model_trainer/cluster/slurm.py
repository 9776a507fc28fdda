"""Tasks of one `srun`, from Slurm's variables.

An sbatch script and the shell of salloc hold an allocation but are one process; only what `srun` starts has a step.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from model_trainer.cluster.hosts import Hosts, make_hosts, parse_integer
from model_trainer.errors import ConfigError

__all__ = ["expand_counts", "expand_nodes", "first_port", "from_slurm", "is_step"]

# Below 32768, where Linux begins to hand out ports by itself, room for 1000 jobs with 16 tasks on a node each.
LOWEST_PORT, JOBS, TASKS = 15_000, 1_000, 16


def is_step(environ: Mapping[str, str]) -> bool:
    """Whether `srun` started this process. An sbatch script has SLURM_PROCID as well, but no step."""
    return bool(environ.get("SLURM_PROCID")) and bool(environ.get("SLURM_STEP_ID") or environ.get("SLURM_STEPID"))


def from_slurm(environ: Mapping[str, str]) -> Hosts | None:
    """The tasks of this step, in the order of its nodes; None outside `srun` or with a single task.

    The own place follows from the node and the place on it, not from SLURM_PROCID: with `--distribution=cyclic`
    numbers of tasks go round the nodes, and a task does not see how the others are numbered.

    Raises:
        ConfigError: variables are missing, cannot be read, or contradict each other.
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
    addresses = [f"{node}:{port + place}" for node, number in zip(nodes, tasks, strict=True) for place in range(number)]
    node, place = parse_integer(environ, "SLURM_NODEID"), parse_integer(environ, "SLURM_LOCALID")
    if node is not None and place is not None and node < len(nodes) and place < tasks[node]:
        index = sum(tasks[:node]) + place
    else:
        index = parse_integer(environ, "SLURM_PROCID") or 0
    return make_hosts(addresses, index, "Slurm", field=nodes_name, index_field="SLURM_PROCID")


def first_port(job: int, step: int) -> int:
    """The port of the first task on each node, 15000 to 30984; the next tasks there have the next ports.

    Jobs that share a node have different ports unless their numbers differ by a multiple of 1000, and steps of one job
    that run at the same time unless theirs do.
    """
    return LOWEST_PORT + (job + 331 * step) % JOBS * TASKS


def expand_nodes(text: str, field: str = "SLURM_STEP_NODELIST") -> list[str]:
    """Names of the nodes, in order: "gpu[01-03,07],login1" are gpu01, gpu02, gpu03, gpu07 and login1.

    Raises:
        ConfigError: the list cannot be read; names `field`.
    """
    parts = re.findall(r"(?:[^,\[\]]|\[[^\[\]]*\])+", text)
    names = [name for part in parts for name in _expand_part(part, text, field)]
    if not names or ",".join(parts) != text:
        raise _unreadable(text, field)
    return names


def expand_counts(text: str, field: str = "SLURM_STEP_TASKS_PER_NODE") -> list[int]:
    """Numbers of tasks, node by node: "2(x3),1" are 2, 2, 2 and 1.

    Raises:
        ConfigError: the list cannot be read; names `field`.
    """
    counts: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]{1,6})(?:\(x([0-9]{1,6})\))?", part.strip())
        if match is None:
            raise ConfigError(f'should be numbers of tasks such as "2(x3),1", got {text!r}.', field)
        counts += [int(match[1])] * int(match[2] or 1)
    return counts


def _expand_part(part: str, text: str, field: str) -> Iterator[str]:
    """Every name of one part; it may have several brackets, as in "rack[1-2]n[01-16]"."""
    before, bracket, rest = part.partition("[")
    if not bracket:
        yield part
        return
    inside, _, after = rest.partition("]")
    for numbers in inside.split(","):
        match = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", numbers)
        if match is None:
            raise _unreadable(text, field)
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last < first + 100_000:  # more machines than any cluster has: a slip of the pen
            raise _unreadable(text, field)
        for number in range(first, last + 1):
            for ending in _expand_part(after, text, field):
                yield f"{before}{number:0{len(match[1])}}{ending}"


def _tasks_per_node(environ: Mapping[str, str], count: int, num_nodes: int) -> list[int]:
    name = "SLURM_STEP_TASKS_PER_NODE" if environ.get("SLURM_STEP_TASKS_PER_NODE") else "SLURM_TASKS_PER_NODE"
    if environ.get(name):
        tasks = expand_counts(environ[name], name)
    elif count % num_nodes == 0:
        tasks = [count // num_nodes] * num_nodes
    else:
        raise ConfigError(
            f"is missing; it says where the {count} tasks on {num_nodes} nodes are.", "SLURM_STEP_TASKS_PER_NODE"
        )
    if len(tasks) != num_nodes or sum(tasks) != count:
        raise ConfigError(
            f"should say where {count} tasks on {num_nodes} nodes are, got {environ.get(name)!r}. Start training "
            "by srun itself, inside one sbatch or salloc.",
            name,
        )
    return tasks


def _present(environ: Mapping[str, str], name: str, older: str) -> str:
    for each in (name, older):
        if environ.get(each):
            return each
    raise ConfigError("is missing, though this is a step of Slurm. Start training by srun, or give --hosts.", name)


def _step(environ: Mapping[str, str]) -> int:
    return parse_integer(environ, "SLURM_STEP_ID") or parse_integer(environ, "SLURM_STEPID") or 0


def _unreadable(text: str, field: str) -> ConfigError:
    return ConfigError(f'should be a list of nodes such as "gpu[01-03,07],login1", got {text!r}.', field)
