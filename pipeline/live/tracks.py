"""Which boxes of successive frames are the same face: greedy matching by overlap.

The boxes of a frame are matched to the last known boxes of the tracks, the pair with the largest overlap (IoU) first,
down to a least overlap. A box that is left over begins a track. A track ends when it went unmatched for some frames.
There is no model of motion: a face that moves by more than about its half between two frames begins a new track.
"""

from __future__ import annotations

import numpy as np

from models.boxes import iou


class Tracker:
    """Gives the boxes of each frame the numbers of their tracks.

    Args:
        overlap: least IoU of a box with the last box of its track.
        patience: frames that a track may go unmatched.
    """

    def __init__(self, overlap: float, patience: int) -> None:
        self._overlap, self._patience = overlap, patience
        self._boxes = np.zeros((0, 4))
        self._tracks = np.zeros(0, np.int64)
        self._unmatched = np.zeros(0, np.int64)
        self.begun = 0

    @property
    def alive(self) -> frozenset[int]:
        """The tracks that a box of the next frame may continue."""
        return frozenset(self._tracks.tolist())

    def update(self, boxes: np.ndarray) -> list[int]:
        """Returns the track of each of (m, 4) boxes of the next frame, numbered from 0 as they begin.

        >>> tracker = Tracker(overlap=0.3, patience=1)
        >>> tracker.update(np.array([[0, 0, 10, 10], [50, 0, 10, 10]]))
        [0, 1]
        >>> tracker.update(np.array([[51, 0, 10, 10], [90, 0, 10, 10]]))
        [1, 2]
        """
        found = self._matched(boxes)
        for row, track in enumerate(found):
            if track < 0:
                found[row] = self.begun
                self.begun += 1
        self._remember(boxes, np.asarray(found, np.int64))
        return found

    def _matched(self, boxes: np.ndarray) -> list[int]:
        """Returns the track of each box, -1 where none fits."""
        overlaps = iou(self._boxes, boxes)
        found = [-1] * len(boxes)
        taken: set[int] = set()
        for pair in np.argsort(-overlaps, axis=None, kind="stable").tolist():
            track, box = divmod(pair, len(boxes))
            if overlaps[track, box] < self._overlap:
                break
            if track not in taken and found[box] < 0:
                taken.add(track)
                found[box] = int(self._tracks[track])
        return found

    def _remember(self, boxes: np.ndarray, tracks: np.ndarray) -> None:
        waiting = ~np.isin(self._tracks, tracks)
        unmatched = self._unmatched + 1
        kept = waiting & (unmatched <= self._patience)
        self._boxes = np.concatenate([self._boxes[kept], np.asarray(boxes, np.float64).reshape(-1, 4)])
        self._tracks = np.concatenate([self._tracks[kept], tracks])
        self._unmatched = np.concatenate([unmatched[kept], np.zeros(len(tracks), np.int64)])
