"""One-to-one matching of found boxes and known faces, as FDDB defines it: the pairs with the largest sum of overlaps.

FDDB takes the maximum of a bipartite graph (Jain and Learned-Miller 2010), PASCAL and COCO go through the boxes from
the surest on. The maximum is taken here: it depends on the boxes alone and not on the order of nearly equal scores, so
detectors whose scores have other scales are treated alike.

Not here: overlaps (`regions.py`), and what follows from a pair (`detection.py`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

NONE = -1  # in place of a row or a column


def grow_matching(overlap: np.ndarray) -> Iterator[np.ndarray]:
    """Yields, after each row, the best matching of the rows so far: (n,) int, the row of each column or `NONE`.

    The Hungarian method adds a row at a time and holds the maximum after each, so one pass over boxes from the surest
    on tells the matching at every threshold. Boxes that overlap nothing stay alone.

    Args:
        overlap: (m, n) float64, 0 or more.
    """
    rows, columns = overlap.shape
    cost = np.zeros((rows, columns + rows))  # a column of its own lets every row stay alone
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
        """Takes in a row at the least cost; rows before it may be moved."""
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
