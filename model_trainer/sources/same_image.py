"""Recognizes examples of the same image: its crops, or a file that is listed several times."""

from __future__ import annotations

import hashlib
import os

import numpy as np

from model_trainer.sources.images import Images

__all__ = ["image_ids"]


def image_ids(images: Images, rows: np.ndarray) -> np.ndarray:
    """Numbers the images of `rows` by their names, in the order of appearance; files by their absolute paths.

    Returns:
        int64 `(len(rows),)`, from 0; equal for rows that show the same image.
    """
    folder = os.getcwd()
    distinct, position = np.unique(rows, return_inverse=True)
    # 8-byte digests instead of the names: among a million images, two collide with a probability of 3e-8, and are then
    # merely treated as one. Not `hash`, so that the numbers are the same in every process.
    digests = np.fromiter((_digest(images.name(int(row)), folder) for row in distinct), np.uint64, len(distinct))
    _, first, number = np.unique(digests[position.reshape(-1)], return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[number.reshape(-1)]


def _digest(name: str, folder: str) -> int:
    path = name if "://" in name else os.path.normpath(os.path.join(folder, name))
    return int.from_bytes(hashlib.blake2b(os.fsencode(path), digest_size=8).digest(), "little")
