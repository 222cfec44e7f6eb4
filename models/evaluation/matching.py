"""Matches found boxes and known faces one to one, as FDDB does: the pairs with the largest sum of overlaps.

FDDB uses a maximum bipartite matching (Jain and Learned-Miller 2010); PASCAL and COCO go through the boxes by
descending score. The maximum is used here: it depends only on the boxes, not on the order of nearly equal scores. So
detectors with different scales of scores are treated alike.

Not here: overlaps (`regions.py`), and what follows from a pair (`detection.py`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

NONE = -1  # no row, no column


def grow_matching(overlap: np.ndarray) -> Iterator[np.ndarray]:
    """Yields, after each row, the best matching of the rows so far: (n,) int, the row of each column or `NONE`.

    The Hungarian method adds one row at a time and has the maximum after each. So one pass over the boxes by descending
    score gives the matching at every threshold. Boxes that overlap nothing stay unmatched.

    Args:
        overlap: (m, n) float64, 0 or more.
    """
    rows, columns = overlap.shape
    cost = np.zeros((rows, columns + rows))  # an extra column per row lets it stay unmatched
    cost[:, :columns] = -overlap
    search = _Hungarian(cost)
    for row in range(rows):
        if overlap[row].any():
            search.add(row)
        owner = search.owner[:columns].copy()
        owner[(owner != NONE) & (overlap[owner, np.arange(columns)] == 0)] = NONE
        yield owner


def best_matching(overlap: np.ndarray) -> np.ndarray:
    """Returns the matching of all rows: (n,) int, the row of each column or `NONE`."""
    owner = np.full(overlap.shape[1], NONE)
    for owner in grow_matching(overlap):  # noqa: B007 - the last one counts
        pass
    return owner


class _Hungarian:
    """The method of shortest augmenting paths with potentials, for more columns than rows.

    Attributes:
        owner: (columns,) int, the row of each column, or `NONE`.
    """

    def __init__(self, cost: np.ndarray) -> None:
        self._cost = cost
        self._row_price = np.zeros(len(cost))
        self._column_price = np.zeros(cost.shape[1])
        self.owner = np.full(cost.shape[1], NONE)

    def add(self, row: int) -> None:
        """Adds a row at the least cost; earlier rows may move to other columns."""
        columns = self._cost.shape[1]
        distance, before = np.full(columns, np.inf), np.full(columns, NONE)
        done = np.zeros(columns, bool)
        path: list[int] = []
        at, column = row, NONE
        while at != NONE:
            reduced = self._cost[at] - self._row_price[at] - self._column_price
            nearer = ~done & (reduced < distance)
            distance[nearer], before[nearer] = reduced[nearer], column
            ahead = int(np.argmin(np.where(done, np.inf, distance)))
            step = distance[ahead]
            self._row_price[[row, *(self.owner[seen] for seen in path)]] += step
            self._column_price[done] -= step
            distance[~done] -= step
            done[ahead], column, at = True, ahead, int(self.owner[ahead])
            path.append(ahead)
        while column != NONE:
            previous = int(before[column])
            self.owner[column] = row if previous == NONE else self.owner[previous]
            column = previous
