"""Detects the launcher that started this process, and the addresses of all processes of the run.

Options of the user take precedence. If launchers are nested, the inner one started this process, so Open MPI and
torchrun, which set variables of their own, come before Slurm. Plain variables such as RANK may be left over from a
script, so they come after it.

TF_CONFIG, Slurm and SageMaker list all processes. Open MPI, torchrun and the plain variables give each process a rank
and the address of the first one, MASTER_ADDR and MASTER_PORT, where the processes meet and exchange their addresses.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from model_trainer.cluster.hosts import Hosts, make_hosts, parse_integer, port_number
from model_trainer.cluster.rendezvous import meet
from model_trainer.cluster.slurm import from_slurm, is_step
from model_trainer.cluster.tf_config import from_tf_config
from model_trainer.errors import ConfigError
from model_trainer.storage import files

__all__ = ["find_hosts"]

RESOURCE_CONFIG = Path("/opt/ml/input/config/resourceconfig.json")  # SageMaker puts it into every container
SAGEMAKER_PORT = 2222


def find_hosts(
    hosts: str | None,
    index: int | None,
    environ: Mapping[str, str],
    *,
    resource_config: Path = RESOURCE_CONFIG,
    timeout_seconds: float = 600.0,
) -> Hosts | None:
    """Finds the processes that train together, from options, environment variables or SageMaker's file.

    A launcher that reports a single process is ignored in favor of the next one; only `hosts` with one address is
    final. If only the first process's address is known, this waits until all processes have reported to it.

    Args:
        hosts: value of `--hosts`, such as "gpu01:2222,gpu02:2222".
        index: value of `--host-index`, from 0.
        environ: environment variables.
        resource_config: SageMaker's list of machines.
        timeout_seconds: how long to wait for the other processes, if they must meet first.

    Returns:
        The processes, and the index of this one; None if this is the only process.

    Raises:
        ConfigError: something is missing, contradictory or malformed; the message names the option, variable or file.
        HostError: not all processes reported in time; exit code 75.

    Example:
        >>> find_hosts("gpu01:2222,gpu02:2222", 1, environ={}).describe()
        'host 1 of 2 (gpu02:2222), found in --hosts'
    """
    if hosts is not None or index is not None:
        from_options = _from_flags(hosts, index, environ)
        return from_options if len(from_options) > 1 else None
    hosts_or_none = (
        from_tf_config(environ)
        or _from_open_mpi(environ, timeout_seconds)
        or _from_torchrun(environ, timeout_seconds)
        or from_slurm(environ)
        or _from_variables(environ, timeout_seconds)
        or _from_sagemaker(environ, resource_config)
    )
    if hosts_or_none is None:
        _check_complete(environ)
    return hosts_or_none


def _from_flags(hosts: str | None, index: int | None, environ: Mapping[str, str]) -> Hosts:
    """The processes in `--hosts`; without `--host-index` this process's rank comes from a launcher's variables.

    Raises:
        ConfigError: an address is wrong, or the rank of this process is unknown.
    """
    if hosts is None:
        raise ConfigError(
            f"is {index}, but --hosts is missing. Give all addresses: --hosts a:2222,b:2222.", "--host-index"
        )
    addresses = hosts.split(",")
    if index is not None or len(addresses) == 1:
        return make_hosts(addresses, index or 0, "--hosts", field="--hosts", index_field="--host-index")
    for launcher, index_field, rank, size in _ranks_by_launchers(environ):
        if size is not None and size != len(addresses):
            raise ConfigError(
                f"names {len(addresses)} addresses, but {launcher} started {size} processes. Name one address for "
                "each process.",
                "--hosts",
            )
        source = f"--hosts, its index in {launcher}"
        return make_hosts(addresses, rank, source, field="--hosts", index_field=index_field)
    raise ConfigError(
        f"is missing. Give 0 on the first of the {len(addresses)} machines in --hosts, 1 on the next, and so on.",
        "--host-index",
    )


def _ranks_by_launchers(environ: Mapping[str, str]) -> Iterator[tuple[str, str, int, int | None]]:
    """Yields a launcher's name, the variable of the rank, the rank, and the number of processes or None."""
    variables = [
        ("Open MPI", "OMPI_COMM_WORLD_RANK", ("OMPI_COMM_WORLD_SIZE",)),
        ("RANK", "RANK", ("WORLD_SIZE",)),
        ("Slurm", "SLURM_PROCID", ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")),
    ]
    for launcher, rank_name, size_names in variables:
        if launcher == "Slurm" and not is_step(environ):
            continue
        rank = parse_integer(environ, rank_name)
        size = next((size for size in (parse_integer(environ, name) for name in size_names) if size is not None), None)
        if rank is not None and size is not None and size > 1:
            yield launcher, rank_name, rank, size
    rank = parse_integer(environ, "JOB_COMPLETION_INDEX")
    if rank is not None:
        yield "Kubernetes", "JOB_COMPLETION_INDEX", rank, None


def _from_open_mpi(environ: Mapping[str, str], timeout_seconds: float) -> Hosts | None:
    """The processes of one `mpirun`; None outside it or with a single one.

    Raises:
        ConfigError: MASTER_ADDR or MASTER_PORT is missing, which are needed because Open MPI provides no addresses.
    """
    size = parse_integer(environ, "OMPI_COMM_WORLD_SIZE")
    if size is None or size <= 1:
        return None
    cure = (
        "Open MPI numbers its processes but provides no addresses. Add "
        "`-x MASTER_ADDR=<first machine> -x MASTER_PORT=29500` to mpirun, or use --hosts."
    )
    return _meet_at_master(environ, "Open MPI", ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"), cure, timeout_seconds)


def _from_torchrun(environ: Mapping[str, str], timeout_seconds: float) -> Hosts | None:
    """The processes of one `torchrun`; None outside it or with a single one."""
    return _from_variables(environ, timeout_seconds, "torchrun") if environ.get("TORCHELASTIC_RUN_ID") else None


def _from_variables(
    environ: Mapping[str, str], timeout_seconds: float, source: str = "WORLD_SIZE and RANK"
) -> Hosts | None:
    """The processes described by WORLD_SIZE, RANK, MASTER_ADDR and MASTER_PORT; None if one of them is missing."""
    names = ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT")
    if not all(environ.get(name) for name in names) or (parse_integer(environ, "WORLD_SIZE") or 0) <= 1:
        return None
    return _meet_at_master(environ, source, ("RANK", "WORLD_SIZE"), "", timeout_seconds)


def _check_complete(environ: Mapping[str, str]) -> None:
    """Raises ConfigError if some of the variables for several processes are set, and others are missing."""
    size = parse_integer(environ, "WORLD_SIZE")
    if size == 1 or (size is None and not (environ.get("RANK") and environ.get("MASTER_ADDR"))):
        return
    for name in ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT"):
        if not environ.get(name):
            raise ConfigError(
                "is missing, while others of WORLD_SIZE, RANK, MASTER_ADDR and MASTER_PORT are set. Set all four, "
                "or none of them to train alone.",
                name,
            )


def _meet_at_master(
    environ: Mapping[str, str], source: str, names: tuple[str, str], cure: str, timeout_seconds: float
) -> Hosts:
    rank_name, size_name = names
    for name in (rank_name, "MASTER_ADDR", "MASTER_PORT"):
        if not environ.get(name):
            raise ConfigError(f"is missing. {cure}", name)
    rank, size = parse_integer(environ, rank_name) or 0, parse_integer(environ, size_name) or 0
    if rank >= size:
        raise ConfigError(f"should be 0 to {size - 1}, as {size_name} is {size}, got {rank}.", rank_name)
    host = environ["MASTER_ADDR"].strip().removeprefix("[").removesuffix("]")
    port = port_number(environ["MASTER_PORT"].strip(), "MASTER_PORT")
    if environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        port = port + 1 if port < 65535 else port - 1  # torchrun itself listens on MASTER_PORT
    addresses = meet(host, port, rank, size, timeout_seconds=timeout_seconds)
    return make_hosts(addresses, rank, source, field="MASTER_ADDR", index_field=rank_name)


def _from_sagemaker(environ: Mapping[str, str], resource_config: Path) -> Hosts | None:
    """SageMaker's containers sorted by name, each with port 2222; None outside SageMaker or with a single one.

    Raises:
        ConfigError: the file or the variables cannot be read, or do not list this container.
    """
    if files.is_file(resource_config):
        field = str(resource_config)
        try:
            content = _parse_json(files.read_text(resource_config), field)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot be read: {error}.", field) from None
        if not isinstance(content, dict):
            raise ConfigError('should have "current_host" and "hosts".', field)
        current_host, hosts, current_field = content.get("current_host"), content.get("hosts"), field
    elif environ.get("SM_HOSTS"):
        field, current_field = "SM_HOSTS", "SM_CURRENT_HOST"
        current_host, hosts = environ.get(current_field), _parse_json(environ[field], field)
    else:
        return None
    if not isinstance(hosts, list) or not hosts or not all(isinstance(host, str) for host in hosts):
        raise ConfigError(f'should name the hosts, such as ["algo-1", "algo-2"], got {hosts!r}.', field)
    if len(hosts) == 1:
        return None
    names = sorted(hosts)
    if current_host not in names:
        expected = ", ".join(names)
        raise ConfigError(f"should name one of {expected} as the current host, got {current_host!r}.", current_field)
    addresses = [f"{name}:{SAGEMAKER_PORT}" for name in names]
    return make_hosts(addresses, names.index(current_host), "SageMaker", field=field, index_field=current_field)


def _parse_json(text: str, field: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"should be JSON, but cannot be read: {error}.", field) from None
