"""Finds nearly equal vectors among millions: sketches of bits, sorted many times, neighbours compared.

Similarity is the cosine of two vectors after the mean of all is taken off: features of a network that are all positive
have large cosines whatever they show. A vector becomes 512 bits, on which side of as many random planes it lies; two at
an angle differ in angle / pi of them (Charikar 2002). In each of 32 passes all sketches are sorted from another bit on,
and each is compared with those that follow it and begin with the same bits. A pair that is missed in one pass is met in
another.

Memory: 64 bytes a vector for the sketch, some 50 while it searches. Time grows with the number of vectors, not with its
square. The same vectors in the same order give the same pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

BITS, WORDS = 512, 8  # of a sketch; words of 64
_PASSES = 32
_NEIGHBOURS = 32  # compared with each in a pass, at most: else thousands of equal vectors would take forever
_SEED = 20_031  # of the planes
_CENTRED_BY = 4_096  # vectors whose mean is taken for that of all
_SLACK = 3.0  # standard deviations by which a sketch may look less alike than the vectors are
_MOST_PAIRS = 2_000_000  # kept while it searches, the most alike
_SHIFT = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)


@dataclass(frozen=True, slots=True)
class Candidates:
    """Pairs of vectors that look alike by their sketches, the most alike first.

    Attributes:
        one, other: (p,) int64, numbers of the vectors in the order they were added; `one` is the smaller.
        differing: (p,) int64, bits in which their sketches differ.
        complete: False if there were more than are kept.
    """

    one: np.ndarray
    other: np.ndarray
    differing: np.ndarray
    complete: bool

    def __len__(self) -> int:
        return len(self.one)


@dataclass(slots=True)
class Sketches:
    """Takes vectors in batches and keeps their sketches."""

    _parts: list[np.ndarray] = field(default_factory=list)
    _waiting: list[np.ndarray] = field(default_factory=list)
    _planes: np.ndarray | None = None
    mean: np.ndarray | None = None

    def add(self, vectors: np.ndarray) -> None:
        """Adds (m, d) vectors of any float type; all batches have one width."""
        if not len(vectors):
            return
        if self.mean is None:
            self._waiting.append(np.array(vectors))
            if sum(map(len, self._waiting)) >= _CENTRED_BY:
                self._settle()
            return
        self._sketch(vectors)

    def _settle(self) -> None:
        """Fixes the mean and the planes, and sketches what has waited for them."""
        vectors = np.concatenate(self._waiting)
        self._waiting.clear()
        self.mean = vectors[:_CENTRED_BY].mean(axis=0, dtype=np.float64).astype(np.float32)
        self._planes = np.random.default_rng(_SEED).standard_normal((vectors.shape[1], BITS), np.float32)
        self._sketch(vectors)

    def _sketch(self, vectors: np.ndarray) -> None:
        assert self.mean is not None and self._planes is not None
        for start in range(0, len(vectors), _CENTRED_BY):
            some = vectors[start : start + _CENTRED_BY].astype(np.float32) - self.mean
            bits = np.packbits(some @ self._planes > 0, axis=1)
            self._parts.append(bits.view(">u8").astype(np.uint64))

    def words(self) -> np.ndarray:
        """Returns (n, 8) uint64, the sketches; the first bit is the highest of the first word."""
        if self._waiting:
            self._settle()
        if len(self._parts) > 1:
            self._parts = [np.concatenate(self._parts)]
        return self._parts[0] if self._parts else np.zeros((0, WORDS), np.uint64)


def centred_cosine(a: np.ndarray, b: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Returns (n,) float64, the similarity of each row of (n, d) with the same row of (n, d)."""
    a, b = a.astype(np.float64) - mean, b.astype(np.float64) - mean
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray(np.divide((a * b).sum(axis=1), lengths, out=np.zeros(len(a)), where=lengths > 0))


def candidate_pairs(words: np.ndarray, least: float) -> Candidates:
    """Returns the pairs that may be as alike as `least`.

    Args:
        words: (n, 8) uint64, of `Sketches`.
        least: cosine, from 0 to 1.
    """
    allowed = _allowed(least, BITS)
    kept, complete = np.zeros((0, 2), np.uint64), True  # pair as one number, bits that differ
    for number in range(_PASSES):
        found = _one_pass(words, number, allowed, _allowed(least, 64))
        kept = _merged([kept, *found])
        complete = complete and len(kept) <= _MOST_PAIRS
        kept = kept[np.argsort(kept[:, 1], kind="stable")[:_MOST_PAIRS]]
    kept = kept[np.lexsort((kept[:, 0], kept[:, 1]))]
    one, other = kept[:, 0] >> _SHIFT, kept[:, 0] & _LOW
    return Candidates(one.astype(np.int64), other.astype(np.int64), kept[:, 1].astype(np.int64), complete)


def _allowed(least: float, bits: int) -> int:
    """Returns in how many of so many bits two sketches may differ whose vectors are as alike as `least`."""
    share = float(np.arccos(np.clip(least, -1, 1))) / np.pi
    return int(np.ceil(bits * share + _SLACK * np.sqrt(bits * share * (1 - share))))


def _one_pass(words: np.ndarray, number: int, allowed: int, allowed_in_word: int) -> list[np.ndarray]:
    """Returns pairs, as rows of (pair, bits that differ), that meet when sketches are sorted from one bit on."""
    keys = _keys(words, number * BITS // _PASSES)
    order = np.argsort(keys, kind="stable")
    prefix = keys[order] >> np.uint64(64 - _prefix_bits(len(words)))
    quick = words[order, (number * WORDS // _PASSES + WORDS // 2) % WORDS]  # a word that the order does not depend on
    found = []
    for step in range(1, min(_NEIGHBOURS, len(words) - 1) + 1):
        at = np.flatnonzero(prefix[step:] == prefix[:-step])
        if not len(at):
            break
        at = at[np.bitwise_count(quick[at] ^ quick[at + step]) <= allowed_in_word]
        one, other = order[at], order[at + step]
        differing = np.bitwise_count(words[one] ^ words[other]).sum(axis=1, dtype=np.uint64)
        near = differing <= allowed
        pair = np.minimum(one, other)[near].astype(np.uint64) << _SHIFT | np.maximum(one, other)[near].astype(np.uint64)
        found.append(np.stack([pair, differing[near]], axis=1))
    return found


def _keys(words: np.ndarray, bit: int) -> np.ndarray:
    """Returns (n,) uint64: 64 bits of each sketch from one bit on, round its end."""
    word, shift = divmod(bit, 64)
    first, following = words[:, word], words[:, (word + 1) % WORDS]
    if not shift:
        return first
    return np.asarray(first << np.uint64(shift) | following >> np.uint64(64 - shift))


def _prefix_bits(count: int) -> int:
    """Returns how many bits two sketches share that are compared: so many that a few dozen share them by chance."""
    return max(6, int(np.ceil(np.log2(max(2, count)))) - 4)


def _merged(parts: list[np.ndarray]) -> np.ndarray:
    every = np.concatenate(parts)
    _, first = np.unique(every[:, 0], return_index=True)
    return every[first]


def groups_of_pairs(one: np.ndarray, other: np.ndarray) -> list[np.ndarray]:
    """Returns the groups that pairs connect, each sorted; the largest first, and of equally large ones the earliest.

    >>> [group.tolist() for group in groups_of_pairs(np.array([1, 7, 2]), np.array([2, 8, 5]))]
    [[1, 2, 5], [7, 8]]
    """
    names, places = np.unique(np.concatenate([one, other]), return_inverse=True)
    a, b = np.split(places, 2)
    root = np.arange(len(names))
    while True:
        least = np.minimum(root[a], root[b])
        before = root.copy()
        np.minimum.at(root, root[a], least)
        np.minimum.at(root, root[b], least)
        root = root[root]
        if (root == before).all():
            break
    order = np.argsort(root, kind="stable")
    groups = np.split(names[order], np.flatnonzero(np.diff(root[order])) + 1) if len(names) else []
    return sorted(groups, key=lambda group: (-len(group), int(group[0])))
