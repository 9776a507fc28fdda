"""Near-duplicate images by perceptual hash, without comparing all pairs.

Two 64-bit hashes that differ in at most 3 bits agree in at least 3 of 6 blocks. For each of the 20 ways to choose
3 blocks, the images are sorted by those blocks, and only neighbors in that order are compared. Takes O(n log n) time.

Source: https://research.google/pubs/detecting-near-duplicates-for-web-crawling/
"""

from __future__ import annotations

import itertools

import numpy as np

__all__ = ["near_groups", "near_pairs"]

MAX_BITS = 3  # maximum Hamming distance of two hashes of 64 bits
MAX_COLOR_DIFFERENCE = 8.0  # of 255, mean over all cells; less for images of low contrast
_FRACTION_OF_CONTRAST = 0.15  # a small object on a plain background resembles any other on the same background

# When more images agree in the chosen blocks, as a million white pages would, not all their pairs are compared.
_MAX_NEIGHBOURS = 32

_BLOCKS = [np.uint64((1 << 11) - 1 << 11 * number & (1 << 64) - 1) for number in range(6)]  # the last has 9 bits
_CHOICES = list(itertools.combinations(range(6), 3))


def near_pairs(difference_hashes: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Pairs of images that look nearly the same.

    Args:
        difference_hashes: uint64 `(n,)`.
        colors: uint8 `(n, 48)`, mean colors of 4 by 4 cells.

    Returns:
        int64 `(num_pairs, 2)`, indices of images; each pair occurs once.
    """
    presorted = np.argsort(difference_hashes, kind="stable")  # so that the nearest of equal blocks are neighbors
    near = [np.zeros((0, 2), np.int64)]
    for table, chosen in enumerate(_CHOICES):
        mask = np.bitwise_or.reduce([_BLOCKS[number] for number in chosen])
        order = presorted[np.argsort(difference_hashes[presorted] & mask, kind="stable")]
        keys, hashes = difference_hashes[order] & mask, difference_hashes[order]
        for distance in range(1, min(_MAX_NEIGHBOURS + 1, len(order))):
            agree = np.flatnonzero(keys[distance:] == keys[:-distance])
            if not len(agree):
                break
            different = hashes[agree] ^ hashes[agree + distance]
            # A pair that agrees in more than 3 blocks occurs for several choices; it counts for the first only.
            agree = agree[(np.bitwise_count(different) <= MAX_BITS) & (_first_table(different) == table)]
            pairs = np.stack([order[agree], order[agree + distance]], axis=1)
            near.append(pairs[_have_similar_colors(colors, pairs)])
    return np.concatenate(near)


def near_groups(difference_hashes: np.ndarray, colors: np.ndarray) -> list[np.ndarray]:
    """Groups of images that look nearly the same.

    Args:
        difference_hashes, colors: see `near_pairs`.

    Returns:
        int64 arrays of indices. The first image of a group, its leader, is near each of the others; no image is in
        two groups.

    Example:
        >>> hashes = np.array([0b0000, 0b0111, 0xFFFF], np.uint64)  # the first two differ in 3 bits
        >>> near_groups(hashes, np.zeros((3, 48), np.uint8))
        [array([0, 1])]
    """
    pairs = near_pairs(difference_hashes, colors)
    both_ways = np.concatenate([pairs, pairs[:, ::-1]])
    both_ways = both_ways[np.lexsort((both_ways[:, 1], both_ways[:, 0]))]
    images, starts, counts = np.unique(both_ways[:, 0], return_index=True, return_counts=True)
    is_grouped = np.zeros(len(difference_hashes), bool)
    groups = []
    # Around leaders instead of along chains: a chain of small steps would connect any image with any other.
    for index in np.lexsort((images, -counts)):
        leader = images[index]
        if is_grouped[leader]:
            continue
        neighbors = both_ways[starts[index] : starts[index] + counts[index], 1]
        neighbors = neighbors[~is_grouped[neighbors]]
        if len(neighbors):
            groups.append(np.concatenate([[leader], neighbors]))
            is_grouped[groups[-1]] = True
    return groups


def _first_table(different: np.ndarray) -> np.ndarray:
    """The index of the first choice of blocks in which the two hashes of each pair agree."""
    changed_blocks = sum(((different & block) != 0).astype(np.int64) << number for number, block in enumerate(_BLOCKS))
    return _FIRST[changed_blocks]


def _first_choice(changed_blocks: int) -> int:
    unchanged = (
        table for table, chosen in enumerate(_CHOICES) if not any(changed_blocks >> number & 1 for number in chosen)
    )
    return next(unchanged, -1)


_FIRST = np.array([_first_choice(changed_blocks) for changed_blocks in range(64)])


def _have_similar_colors(colors: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    is_similar = np.zeros(len(pairs), bool)
    for start in range(0, len(pairs), 2**16):  # in chunks, because colors take more memory than hashes
        first, second = (colors[each].astype(np.float32) for each in pairs[start : start + 2**16].T)
        contrast = np.minimum(first.std(axis=1), second.std(axis=1))
        tolerance = np.clip(_FRACTION_OF_CONTRAST * contrast, 2.0, MAX_COLOR_DIFFERENCE)
        is_similar[start : start + 2**16] = np.abs(first - second).mean(axis=1) <= tolerance
    return is_similar
