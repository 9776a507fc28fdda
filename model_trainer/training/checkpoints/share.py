"""A checkpoint on its way from the process that reads it to the others."""

from __future__ import annotations

import json

import numpy as np

from model_trainer.cluster.team import Team
from model_trainer.training.checkpoints.store import Checkpoint

__all__ = ["share_checkpoint"]


def share_checkpoint(team: Team, checkpoint: Checkpoint | None) -> Checkpoint | None:
    """The checkpoint of the first process, or None where it has none. All processes have to call this together.

    So that only the first one needs the disk on which it lies.
    """
    if len(team) == 1:
        return checkpoint
    described = _described(checkpoint) if team.is_first else b""
    described = team.exchange(described)[0]
    if described == b"null":
        return None
    content = json.loads(described)
    arrays = {}
    for name, dtype, shape in content["arrays"]:
        own = checkpoint.arrays[name].tobytes() if team.is_first and checkpoint is not None else b""
        arrays[name] = np.frombuffer(team.exchange(own)[0], np.dtype(dtype)).reshape(shape)
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
