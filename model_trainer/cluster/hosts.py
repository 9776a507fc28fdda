"""Whether this process is one of several that train one run together, and which: asks each way in turn.

What a person wrote comes first. Of two launchers inside one another the inner one started this process, so Open MPI and
torchrun, which can be known by marks of their own, come before Slurm. Bare variables such as RANK may be left over from
a script, so they come after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from model_trainer.cluster.addresses import Hosts
from model_trainer.cluster.flags import from_flags
from model_trainer.cluster.ranks import check_complete, from_open_mpi, from_torchrun, from_variables
from model_trainer.cluster.sagemaker import RESOURCE_CONFIG, from_sagemaker
from model_trainer.cluster.slurm import from_slurm
from model_trainer.cluster.tf_config import from_tf_config

__all__ = ["Hosts", "find_hosts"]


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
        found = from_flags(hosts, index, environ)
        return found if len(found) > 1 else None
    found_or_none = (
        from_tf_config(environ)
        or from_open_mpi(environ, timeout_seconds)
        or from_torchrun(environ, timeout_seconds)
        or from_slurm(environ)
        or from_variables(environ, timeout_seconds)
        or from_sagemaker(environ, resource_config)
    )
    if found_or_none is None:
        check_complete(environ)
    return found_or_none
