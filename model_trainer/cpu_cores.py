"""How many CPU cores this process may use."""

from __future__ import annotations

import os

__all__ = ["num_usable_cores"]


def num_usable_cores() -> int:
    """The number of CPU cores that this process may use: `taskset` or a cpuset may leave it fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
