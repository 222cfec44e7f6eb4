"""Steadier labels: the probabilities of a track are an exponential mean over its frames.

With smoothing s, a frame's probabilities are s times those shown before plus 1 - s times its own. With 0 they are its
own, unchanged.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from models.heads.output_spec import DECIMALS, ClassOutput, most_likely
from pipeline.api.faces import Face


class Smoother:
    """Keeps the probabilities of each track.

    Args:
        share: of what was shown before, 0 to below 1.
        output: what the head says of a face, if it says an intensity.
    """

    def __init__(self, share: float, output: ClassOutput | None = None) -> None:
        self._share, self._output = share, output
        self._shown: dict[int, np.ndarray] = {}

    def smoothed(self, face: Face, track: int) -> Face:
        """Returns a face as its track says: probabilities, label and the like. One without a label stays as it is."""
        if not self._share or not face.probabilities:
            return face
        own = np.asarray(list(face.probabilities.values()))
        before = self._shown.get(track, own)
        mean = self._share * before + (1 - self._share) * own
        self._shown[track] = mean
        shown = np.round(mean, DECIMALS)
        index = int(most_likely(shown[None])[0])
        probabilities = dict(zip(face.probabilities, shown.tolist(), strict=True))
        label = list(probabilities)[index]
        intensity = face.intensity
        if self._output is not None and intensity is not None:
            intensity = float(self._output.shares(shown[None])[0, index])
        return replace(
            face,
            label=label,
            label_index=index,
            confidence=probabilities[label],
            probabilities=probabilities,
            intensity=intensity,
        )

    def forget_all_but(self, tracks: Collection[int]) -> None:
        """Forgets the tracks that have ended."""
        for track in self._shown.keys() - set(tracks):
            del self._shown[track]
