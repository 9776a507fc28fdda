"""Broadcasts a checkpoint from the chief worker, which reads it, to the other processes."""

from __future__ import annotations

import json

import numpy as np

from model_trainer.cluster.process_group import ProcessGroup
from model_trainer.training.checkpoints.store import Checkpoint

__all__ = ["broadcast_checkpoint"]


def broadcast_checkpoint(process_group: ProcessGroup, checkpoint: Checkpoint | None) -> Checkpoint | None:
    """Returns the chief's checkpoint, or None if it has none; all processes must call this together.

    With this, only the chief needs access to the disk that holds the checkpoints.
    """
    if len(process_group) == 1:
        return checkpoint
    header = _header(checkpoint) if process_group.is_chief else b""
    header = process_group.exchange(header)[0]
    if header == b"null":
        return None
    content = json.loads(header)
    arrays = {}
    for name, dtype, shape in content["arrays"]:
        data = checkpoint.arrays[name].tobytes() if process_group.is_chief and checkpoint is not None else b""
        arrays[name] = np.frombuffer(process_group.exchange(data)[0], np.dtype(dtype)).reshape(shape)
    return Checkpoint(content["epoch"], content["position"], content["state"], arrays)


def _header(checkpoint: Checkpoint | None) -> bytes:
    """All of a checkpoint but the contents of its arrays, as JSON."""
    if checkpoint is None:
        return b"null"
    arrays = [[name, str(array.dtype), list(array.shape)] for name, array in checkpoint.arrays.items()]
    content = {
        "epoch": checkpoint.epoch,
        "position": checkpoint.position,
        "state": checkpoint.state,
        "arrays": arrays,
    }
    return json.dumps(content).encode()
