"""All processes whose addresses are known wait for one another, at the first one's address."""

from __future__ import annotations

import errno
import socket

from model_trainer.cluster.hosts import Hosts, split_address
from model_trainer.cluster.rendezvous import meet
from model_trainer.errors import ConfigError, HostError

__all__ = ["assemble"]


def assemble(hosts: Hosts, timeout_seconds: float) -> None:
    """Returns when all have come.

    Raises:
        HostError: they did not come in time; says who is missing.
        ConfigError: a port is taken, or two processes have the same index.
    """
    _, own_port = split_address(hosts.addresses[hosts.index], hosts.found_in)
    _check_free(own_port, hosts)
    master, port = split_address(hosts.addresses[0], hosts.found_in)
    try:
        meet(master, port, hosts.index, len(hosts), timeout_seconds=timeout_seconds)
    except ConfigError as error:
        raise ConfigError(f"{hosts.describe()}: the hosts cannot meet at {hosts.addresses[0]}: {error}") from error
    except HostError as error:
        raise HostError(f"{hosts.describe()}: {error}") from error


def _check_free(port: int, hosts: Hosts) -> None:
    try:
        with socket.create_server(("", port)):
            pass
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            return  # TensorFlow may listen elsewhere
        raise ConfigError(
            f"{hosts.describe()}: port {port} of this machine is taken, by another program or by a process with the "
            "same index. Give each process a free port and an index of its own."
        ) from None
