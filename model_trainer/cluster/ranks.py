"""Launchers that number the processes and tell where the first one is: Open MPI, torchrun, PyTorchJob, plain variables.

The processes meet at MASTER_ADDR:MASTER_PORT and learn each other's addresses there.
"""

from __future__ import annotations

from collections.abc import Mapping

from model_trainer.cluster.addresses import Hosts, make_hosts, port_number, whole_number
from model_trainer.cluster.rendezvous import meet
from model_trainer.errors import ConfigError

__all__ = ["check_complete", "from_open_mpi", "from_torchrun", "from_variables"]


def from_open_mpi(environ: Mapping[str, str], timeout_seconds: float) -> Hosts | None:
    """The processes of one `mpirun`; None outside it or with a single one.

    Raises:
        ConfigError: MASTER_ADDR or MASTER_PORT is missing, as Open MPI itself gives no addresses.
    """
    size = whole_number(environ, "OMPI_COMM_WORLD_SIZE")
    if size is None or size <= 1:
        return None
    cure = (
        "Open MPI numbers its processes but gives no addresses. Add "
        "`-x MASTER_ADDR=<first machine> -x MASTER_PORT=29500` to mpirun, or give --hosts."
    )
    return _met(environ, "Open MPI", ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"), cure, timeout_seconds)


def from_torchrun(environ: Mapping[str, str], timeout_seconds: float) -> Hosts | None:
    """The processes of one `torchrun`; None outside it or with a single one."""
    return from_variables(environ, timeout_seconds, "torchrun") if environ.get("TORCHELASTIC_RUN_ID") else None


def from_variables(
    environ: Mapping[str, str], timeout_seconds: float, found_in: str = "WORLD_SIZE and RANK"
) -> Hosts | None:
    """The processes that WORLD_SIZE, RANK, MASTER_ADDR and MASTER_PORT speak of; None when one of them is missing."""
    names = ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT")
    if not all(environ.get(name) for name in names) or (whole_number(environ, "WORLD_SIZE") or 0) <= 1:
        return None
    return _met(environ, found_in, ("RANK", "WORLD_SIZE"), "", timeout_seconds)


def check_complete(environ: Mapping[str, str]) -> None:
    """Raises ConfigError when some of the variables are set as for several processes, and others are missing."""
    size = whole_number(environ, "WORLD_SIZE")
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
    rank, size = whole_number(environ, rank_name) or 0, whole_number(environ, size_name) or 0
    if rank >= size:
        raise ConfigError(f"should be 0 to {size - 1}, as {size_name} is {size}, got {rank}.", rank_name)
    host = environ["MASTER_ADDR"].strip().removeprefix("[").removesuffix("]")
    port = port_number(environ["MASTER_PORT"].strip(), "MASTER_PORT")
    if environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        port = port + 1 if port < 65535 else port - 1  # torchrun itself listens at MASTER_PORT
    addresses = meet(host, port, rank, size, timeout_seconds=timeout_seconds)
    return make_hosts(addresses, rank, found_in, field="MASTER_ADDR", index_field=rank_name)
