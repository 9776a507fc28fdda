"""The hosts of a run, and addresses such as "gpu02:2222"."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

from model_trainer.errors import ConfigError

__all__ = ["Hosts", "joined_address", "make_hosts", "parse_integer", "port_number", "split_address"]


@final
@dataclass(frozen=True)
class Hosts:
    """The processes that train one run together, usually one on each machine."""

    addresses: tuple[str, ...]  # "gpu01:2222", "10.0.0.3:2222" or "[fd00::3]:2222", in the same order for every process
    index: int  # position of this process in `addresses`, from 0
    source: str  # where the addresses come from, such as "--hosts" or "Slurm"

    @property
    def is_chief(self) -> bool:
        """Whether this is the process that writes models, checkpoints and logs."""
        return self.index == 0

    def __len__(self) -> int:
        return len(self.addresses)

    def describe(self) -> str:
        """Text such as "host 1 of 3 (gpu02:2222), found in Slurm"; counts from 0, as --host-index does."""
        return f"host {self.index} of {len(self)} ({self.addresses[self.index]}), found in {self.source}"


def make_hosts(addresses: Sequence[str], index: int, source: str, *, field: str, index_field: str) -> Hosts:
    """Checks the addresses and makes a `Hosts`.

    Args:
        addresses: as written by the user or a launcher.
        index: position of this process, from 0.
        source: where they come from, for messages, such as "Slurm".
        field: the option or variable with the addresses.
        index_field: the option or variable with the index.

    Raises:
        ConfigError: an address is malformed or occurs twice, or the index is out of range.
    """
    pairs = [split_address(address, field) for address in addresses]
    checked = tuple(joined_address(host, port) for host, port in pairs)
    twice = _first_repeated(address.lower() for address in checked)
    if twice:
        raise ConfigError(f"names {twice} twice. Give each process its own address and port.", field)
    if not 0 <= index < len(checked):
        raise ConfigError(
            f"should be 0 to {len(checked) - 1}, as `{field}` names {len(checked)} "
            f"process{'es' * (len(checked) > 1)}, got {index}. It counts from 0.",
            index_field,
        )
    return Hosts(checked, index, source)


def split_address(address: str, field: str) -> tuple[str, int]:
    """Splits an address into host, without the brackets of IPv6, and port.

    Raises:
        ConfigError: host or port is missing, or the port is not a number from 1 to 65535; the message names `field`.

    Example:
        >>> split_address("[fd00::3]:2222", "--hosts")
        ('fd00::3', 2222)
    """
    text = address.strip()
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([^\s:/@\[\],]+)):([^:]*)", text)
    if match:
        return match[1] or match[2], port_number(match[3], field, of=text)
    if text.count(":") > 1 and "[" not in text and "/" not in text:
        raise ConfigError(f"should have IPv6 addresses in brackets, such as [fd00::3]:2222, got {text!r}.", field)
    if text and re.fullmatch(r"\[[^\]]*\]|[^\s:/@\[\],]+", text):
        raise ConfigError(f"has no port for {text!r}. Write it as {text}:2222.", field)
    raise ConfigError(f"should have addresses such as gpu01:2222, got {text!r}.", field)


def joined_address(host: str, port: int) -> str:
    """Joins host and port: "gpu01:2222", or "[fd00::3]:2222" for IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def port_number(text: str, field: str, *, of: str = "") -> int:
    """Parses a port.

    Args:
        text: the port.
        field: the option or variable with the port, for messages.
        of: the address that contains it, for messages.

    Raises:
        ConfigError: it is not a number from 1 to 65535.
    """
    number = _number(text)
    if number is None or not 1 <= number <= 65535:
        where = f" in {of!r}" if of else ""
        raise ConfigError(f"should have a port from 1 to 65535, got {text!r}{where}.", field)
    return number


def parse_integer(environ: Mapping[str, str], name: str) -> int | None:
    """Parses the environment variable `name`, an integer of at least 0; None if it is missing or empty.

    Raises:
        ConfigError: it is anything else; the message names the variable.
    """
    text = environ.get(name, "").strip()
    if not text:
        return None
    number = _number(text)
    if number is None:
        raise ConfigError(f"should be a whole number, 0 or more, got {text!r}.", name)
    return number


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def _first_repeated(strings: Iterable[str]) -> str:
    seen: set[str] = set()
    for string in strings:
        if string in seen:
            return string
        seen.add(string)
    return ""
