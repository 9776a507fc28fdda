"""Machines of a SageMaker training job, from the file that it puts into every container, or its toolkit's variables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model_trainer.cluster.addresses import Hosts, make_hosts
from model_trainer.errors import ConfigError
from model_trainer.storage import files

__all__ = ["RESOURCE_CONFIG", "from_sagemaker"]

RESOURCE_CONFIG = Path("/opt/ml/input/config/resourceconfig.json")
PORT = 2222


def from_sagemaker(environ: Mapping[str, str], resource_config: Path = RESOURCE_CONFIG) -> Hosts | None:
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
    addresses = [f"{name}:{PORT}" for name in names]
    return make_hosts(addresses, names.index(own), "SageMaker", field=field, index_field=own_field)


def _parsed(text: str, field: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"should be JSON, but cannot be read: {error}.", field) from None
