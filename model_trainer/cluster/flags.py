"""Machines named by hand: `--hosts gpu01:2222,gpu02:2222 --host-index 1`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from model_trainer.cluster.addresses import Hosts, make_hosts, whole_number
from model_trainer.cluster.slurm import is_step
from model_trainer.errors import ConfigError

__all__ = ["from_flags"]


def from_flags(hosts: str | None, index: int | None, environ: Mapping[str, str]) -> Hosts:
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
    for launcher, index_field, rank, size in _ranks(environ):
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


def _ranks(environ: Mapping[str, str]) -> Iterator[tuple[str, str, int, int | None]]:
    """What launchers say: their name, the variable, the own place, and how many processes there are or None."""
    variables = [
        ("Open MPI", "OMPI_COMM_WORLD_RANK", ("OMPI_COMM_WORLD_SIZE",)),
        ("RANK", "RANK", ("WORLD_SIZE",)),
        ("Slurm", "SLURM_PROCID", ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")),
    ]
    for launcher, rank_name, size_names in variables:
        if launcher == "Slurm" and not is_step(environ):
            continue
        rank = whole_number(environ, rank_name)
        size = next((size for size in (whole_number(environ, name) for name in size_names) if size is not None), None)
        if rank is not None and size is not None and size > 1:
            yield launcher, rank_name, rank, size
    rank = whole_number(environ, "JOB_COMPLETION_INDEX")
    if rank is not None:
        yield "Kubernetes", "JOB_COMPLETION_INDEX", rank, None
