"""A checkpoint on its way from the process that reads it to the others."""

from __future__ import annotations

import json

import numpy as np

from model_trainer.cluster.process_group import ProcessGroup
from model_trainer.training.checkpoints.store import Checkpoint

__all__ = ["broadcast_checkpoint"]


def broadcast_checkpoint(process_group: ProcessGroup, checkpoint: Checkpoint | None) -> Checkpoint | None:
    """The checkpoint of the first process, or None where it has none. All processes have to call this together.

    So that only the first one needs the disk on which it lies.
    """
    if len(process_group) == 1:
        return checkpoint
    described = _described(checkpoint) if process_group.is_chief else b""
    described = process_group.exchange(described)[0]
    if described == b"null":
        return None
    content = json.loads(described)
    arrays = {}
    for name, dtype, shape in content["arrays"]:
        own = checkpoint.arrays[name].tobytes() if process_group.is_chief and checkpoint is not None else b""
        arrays[name] = np.frombuffer(process_group.exchange(own)[0], np.dtype(dtype)).reshape(shape)
    return Checkpoint(content["epoch"], content["position"], content["state"], arrays)


def _described(checkpoint: Checkpoint | None) -> bytes:
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
