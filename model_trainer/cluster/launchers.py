"""Whether this process is one of several that train one run together, and which: asks each way in turn.

What a person wrote comes first. Of two launchers inside one another the inner one started this process, so Open MPI and
torchrun, which can be known by marks of their own, come before Slurm. Bare variables such as RANK may be left over from
a script, so they come after it.

TF_CONFIG, Slurm and SageMaker name every process. Open MPI, torchrun and the variables number them and tell where the
first one is: MASTER_ADDR and MASTER_PORT, where they meet and learn each other's addresses.
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
    """The processes that train together, as the flags, the environment or SageMaker's file say.

    A way that names a single process says nothing, and the next one is asked; only `hosts` with one address decides.
    Where only the first process's address is known, this waits until all processes have reported to it.

    Args:
        hosts: value of `--hosts`, such as "gpu01:2222,gpu02:2222".
        index: value of `--host-index`, from 0.
        environ: environment variables.
        resource_config: SageMaker's list of machines.
        timeout_seconds: how long to wait for the other processes, where they must meet first.

    Returns:
        None when this process trains alone.

    Raises:
        ConfigError: something is missing, contradicts itself, or is written wrongly; names the flag, variable or file.
        HostError: the others did not come in time; exit code 75.
    """
    if hosts is not None or index is not None:
        found = _from_flags(hosts, index, environ)
        return found if len(found) > 1 else None
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
    """The processes that the flags name; without `--host-index` a launcher's variables give the own place.

    Raises:
        ConfigError: an address is wrong, or nothing says which of them this process is.
    """
    if hosts is None:
        raise ConfigError(
            f"is {index}, but --hosts is missing. Give all addresses: --hosts a:2222,b:2222.", "--host-index"
        )
    addresses = hosts.split(",")
    if index is not None or len(addresses) == 1:
        return make_hosts(addresses, index or 0, "--hosts", field="--hosts", index_field="--host-index")
    for launcher, index_field, rank, size in _numbers_by_launchers(environ):
        if size is not None and size != len(addresses):
            raise ConfigError(
                f"names {len(addresses)} addresses, but {launcher} started {size} processes. Name one address for "
                "each process.",
                "--hosts",
            )
        found_in = f"--hosts, its place by {launcher}"
        return make_hosts(addresses, rank, found_in, field="--hosts", index_field=index_field)
    raise ConfigError(
        f"is missing. Give 0 on the first of the {len(addresses)} machines in --hosts, 1 on the next, and so on.",
        "--host-index",
    )


def _numbers_by_launchers(environ: Mapping[str, str]) -> Iterator[tuple[str, str, int, int | None]]:
    """What launchers say: their name, the variable, the own place, and how many processes there are or None."""
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
        ConfigError: MASTER_ADDR or MASTER_PORT is missing, as Open MPI itself gives no addresses.
    """
    size = parse_integer(environ, "OMPI_COMM_WORLD_SIZE")
    if size is None or size <= 1:
        return None
    cure = (
        "Open MPI numbers its processes but gives no addresses. Add "
        "`-x MASTER_ADDR=<first machine> -x MASTER_PORT=29500` to mpirun, or give --hosts."
    )
    return _met(environ, "Open MPI", ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"), cure, timeout_seconds)


def _from_torchrun(environ: Mapping[str, str], timeout_seconds: float) -> Hosts | None:
    """The processes of one `torchrun`; None outside it or with a single one."""
    return _from_variables(environ, timeout_seconds, "torchrun") if environ.get("TORCHELASTIC_RUN_ID") else None


def _from_variables(
    environ: Mapping[str, str], timeout_seconds: float, found_in: str = "WORLD_SIZE and RANK"
) -> Hosts | None:
    """The processes that WORLD_SIZE, RANK, MASTER_ADDR and MASTER_PORT speak of; None when one of them is missing."""
    names = ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT")
    if not all(environ.get(name) for name in names) or (parse_integer(environ, "WORLD_SIZE") or 0) <= 1:
        return None
    return _met(environ, found_in, ("RANK", "WORLD_SIZE"), "", timeout_seconds)


def _check_complete(environ: Mapping[str, str]) -> None:
    """Raises ConfigError when some of the variables are set as for several processes, and others are missing."""
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


def _met(environ: Mapping[str, str], found_in: str, names: tuple[str, str], cure: str, timeout_seconds: float) -> Hosts:
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
        port = port + 1 if port < 65535 else port - 1  # torchrun itself listens at MASTER_PORT
    addresses = meet(host, port, rank, size, timeout_seconds=timeout_seconds)
    return make_hosts(addresses, rank, found_in, field="MASTER_ADDR", index_field=rank_name)


def _from_sagemaker(environ: Mapping[str, str], resource_config: Path) -> Hosts | None:
    """The containers sorted by name, each with port 2222; None outside SageMaker or with a single one.

    Raises:
        ConfigError: the file or the variables cannot be read, or do not name this container.
    """
    if files.is_file(resource_config):
        field = str(resource_config)
        try:
            content = _parsed(files.read_text(resource_config), field)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot be read: {error}.", field) from None
        if not isinstance(content, dict):
            raise ConfigError('should have "current_host" and "hosts".', field)
        own, hosts, own_field = content.get("current_host"), content.get("hosts"), field
    elif environ.get("SM_HOSTS"):
        field, own_field = "SM_HOSTS", "SM_CURRENT_HOST"
        own, hosts = environ.get(own_field), _parsed(environ[field], field)
    else:
        return None
    if not isinstance(hosts, list) or not hosts or not all(isinstance(host, str) for host in hosts):
        raise ConfigError(f'should name the hosts, such as ["algo-1", "algo-2"], got {hosts!r}.', field)
    if len(hosts) == 1:
        return None
    names = sorted(hosts)
    if own not in names:
        raise ConfigError(f"should name one of {', '.join(names)} as the current host, got {own!r}.", own_field)
    addresses = [f"{name}:{SAGEMAKER_PORT}" for name in names]
    return make_hosts(addresses, names.index(own), "SageMaker", field=field, index_field=own_field)


def _parsed(text: str, field: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"should be JSON, but cannot be read: {error}.", field) from None
