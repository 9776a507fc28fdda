"""The machines of one run as a value, and addresses such as "gpu02:2222"."""

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
    index: int  # this process's own place in `addresses`, from 0
    found_in: str  # what said so, such as "--hosts" or "Slurm"

    @property
    def is_chief(self) -> bool:
        """Whether this is the process that writes models, checkpoints and logs."""
        return self.index == 0

    def __len__(self) -> int:
        return len(self.addresses)

    def describe(self) -> str:
        """Such as "host 1 of 3 (gpu02:2222), found in Slurm"; counts from 0, as --host-index does."""
        return f"host {self.index} of {len(self)} ({self.addresses[self.index]}), found in {self.found_in}"


def make_hosts(addresses: Sequence[str], index: int, found_in: str, *, field: str, index_field: str) -> Hosts:
    """The value, checked.

    Args:
        addresses: as the user or a launcher wrote them.
        index: the own place, from 0.
        found_in: for people, such as "Slurm".
        field: the flag or variable that gave the addresses.
        index_field: the flag or variable that gave the index.

    Raises:
        ConfigError: an address is wrong or comes twice, or the index is outside the list.
    """
    parts = [split_address(address, field) for address in addresses]
    checked = tuple(joined_address(host, port) for host, port in parts)
    twice = _first_repeated(address.lower() for address in checked)
    if twice:
        raise ConfigError(f"names {twice} twice. Give each process an address and port of its own.", field)
    if not 0 <= index < len(checked):
        raise ConfigError(
            f"should be 0 to {len(checked) - 1}, as `{field}` names {len(checked)} "
            f"process{'es' * (len(checked) > 1)}, got {index}. It counts from 0.",
            index_field,
        )
    return Hosts(checked, index, found_in)


def split_address(address: str, field: str) -> tuple[str, int]:
    """Host, without the brackets of IPv6, and port.

    Raises:
        ConfigError: there is no host or no port, or the port is no number from 1 to 65535; names `field`.
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
    """Such as "gpu01:2222", or "[fd00::3]:2222" for IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def port_number(text: str, field: str, *, of: str = "") -> int:
    """The port that `text` says.

    Raises:
        ConfigError: it is no number from 1 to 65535; names `field`, and the address `of` that it stands in.
    """
    number = _number(text)
    if number is None or not 1 <= number <= 65535:
        where = f" in {of!r}" if of else ""
        raise ConfigError(f"should have a port from 1 to 65535, got {text!r}{where}.", field)
    return number


def parse_integer(environ: Mapping[str, str], name: str) -> int | None:
    """The whole number, 0 or more, in the variable `name`; None when the variable is missing or empty.

    Raises:
        ConfigError: it is something else; names the variable.
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


def _first_repeated(texts: Iterable[str]) -> str:
    seen: set[str] = set()
    for text in texts:
        if text in seen:
            return text
        seen.add(text)
    return ""
