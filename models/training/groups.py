"""Which rows belong together: all rows of a group train, or none does."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np


def joined(*keys: Sequence[Hashable]) -> np.ndarray:
    """Returns (n,) group numbers, by first appearance: rows belong together if they share any key, also through others.

    Example: `joined([1, 1, 2, 3], ["a", "b", "b", "c"])` is `[0, 0, 0, 1]`: rows 0 and 1 share 1, rows 1 and 2 share
    "b", so 0 and 2 belong together too.

    Args:
        keys: one or more sequences of n keys.
    """
    from scipy.sparse import coo_array  # type: ignore[import-untyped,unused-ignore]
    from scipy.sparse.csgraph import connected_components  # type: ignore[import-untyped,unused-ignore]

    rows = len(keys[0])
    numbers: dict[Hashable, int] = {}
    ends = [numbers.setdefault((place, key), rows + len(numbers)) for place, of in enumerate(keys) for key in of]
    starts = np.tile(np.arange(rows), len(keys))
    nodes = rows + len(numbers)
    edges = coo_array((np.ones(len(ends), np.int8), (starts, np.asarray(ends, np.int64))), shape=(nodes, nodes))
    found = connected_components(edges, directed=False)[1][:rows]
    first: dict[int, int] = {}
    return np.asarray([first.setdefault(int(component), len(first)) for component in found], np.int64)
