"""Images that look nearly the same, without comparing each with each.

Two hashes of 64 bits that differ in at most 3 bits agree in at least 3 of 6 blocks. For each of the 20 ways to choose
3 blocks the images are sorted by those; only neighbours in that order are compared. Time grows with n log n.

Source: https://research.google/pubs/detecting-near-duplicates-for-web-crawling/
"""

from __future__ import annotations

import itertools

import numpy as np

__all__ = ["near_groups", "near_pairs"]

MAX_BITS = 3  # of 64 that may differ
MAX_COLOUR_DIFFERENCE = 8.0  # of 255, the mean over all places; of images with little contrast less
_FRACTION_OF_CONTRAST = 0.15  # a small thing on an even ground is like any other on the same ground

# Where more images agree in the chosen blocks, as a million white pages would, not all pairs of them are compared.
_MAX_NEIGHBOURS = 32

_BLOCKS = [np.uint64((1 << 11) - 1 << 11 * number & (1 << 64) - 1) for number in range(6)]  # the last has 9 bits
_CHOICES = list(itertools.combinations(range(6), 3))


def near_pairs(looks: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """int64 `(num_pairs, 2)`: the pairs that look nearly the same, each once.

    Args:
        looks: uint64 `(n,)`, difference hashes.
        colours: uint8 `(n, 48)`.
    """
    sorted_once = np.argsort(looks, kind="stable")  # so that among equal blocks the nearest stand together
    found = [np.zeros((0, 2), np.int64)]
    for table, chosen in enumerate(_CHOICES):
        mask = np.bitwise_or.reduce([_BLOCKS[number] for number in chosen])
        order = sorted_once[np.argsort(looks[sorted_once] & mask, kind="stable")]
        keys, hashes = looks[order] & mask, looks[order]
        for distance in range(1, min(_MAX_NEIGHBOURS + 1, len(order))):
            agree = np.flatnonzero(keys[distance:] == keys[:-distance])
            if not len(agree):
                break
            different = hashes[agree] ^ hashes[agree + distance]
            agree = agree[(np.bitwise_count(different) <= MAX_BITS) & (_first_table(different) == table)]
            pairs = np.stack([order[agree], order[agree + distance]], axis=1)
            found.append(pairs[_alike(colours, pairs)])
    return np.concatenate(found)


def near_groups(looks: np.ndarray, colours: np.ndarray) -> list[np.ndarray]:
    """Groups of positions; the first of each looks nearly like every other of it, and no image is in two."""
    pairs = near_pairs(looks, colours)
    both = np.concatenate([pairs, pairs[:, ::-1]])
    both = both[np.lexsort((both[:, 1], both[:, 0]))]
    images, starts, counts = np.unique(both[:, 0], return_index=True, return_counts=True)
    is_taken = np.zeros(len(looks), bool)
    groups = []
    # By leaders and not by chains: over a chain of small steps anything is like anything.
    for place in np.lexsort((images, -counts)):
        leader = images[place]
        if is_taken[leader]:
            continue
        others = both[starts[place] : starts[place] + counts[place], 1]
        others = others[~is_taken[others]]
        if len(others):
            groups.append(np.concatenate([[leader], others]))
            is_taken[groups[-1]] = True
    return groups


def _first_table(different: np.ndarray) -> np.ndarray:
    """The first choice of blocks in which the two hashes of each pair agree; pairs are told there only."""
    touched = sum(((different & block) != 0).astype(np.int64) << number for number, block in enumerate(_BLOCKS))
    return _FIRST[touched]


def _first_choice(touched: int) -> int:
    fitting = (table for table, chosen in enumerate(_CHOICES) if not any(touched >> number & 1 for number in chosen))
    return next(fitting, -1)


_FIRST = np.array([_first_choice(touched) for touched in range(64)])


def _alike(colours: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    alike = np.zeros(len(pairs), bool)
    for start in range(0, len(pairs), 2**16):  # in parts, because colours take more memory than hashes
        first, second = (colours[each].astype(np.float32) for each in pairs[start : start + 2**16].T)
        contrast = np.minimum(first.std(axis=1), second.std(axis=1))
        allowed = np.clip(_FRACTION_OF_CONTRAST * contrast, 2.0, MAX_COLOUR_DIFFERENCE)
        alike[start : start + 2**16] = np.abs(first - second).mean(axis=1) <= allowed
    return alike
