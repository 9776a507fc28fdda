"""What processes that meet say to each other: one table of JSON on one line."""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Mapping
from typing import Any

__all__ = ["own_host", "parse_line", "plain_host", "to_line"]

PROTOCOL = "model-trainer-hosts-1"  # so that JSON of another program is not taken for ours


def to_line(content: Mapping[str, Any]) -> bytes:
    """`content` as one line that `parse_line` reads."""
    return json.dumps({"protocol": PROTOCOL, **content}).encode() + b"\n"


def parse_line(line: bytes) -> dict[str, Any] | None:
    """What `to_line` was given, with the protocol's name; None for anything else."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and content.get("protocol") == PROTOCOL else None


def own_host(connection: socket.socket) -> str:
    """This machine's own IP address on a connection."""
    return plain_host(connection.getsockname()[0])


def plain_host(host: str) -> str:
    """An IP address as text; IPv4 inside IPv6, as a socket for both shows it, becomes IPv4."""
    mapped = getattr(ipaddress.ip_address(host), "ipv4_mapped", None)
    return str(mapped or host)
