"""The lesson of the one-shot detector: scenes made on the fly, judged by recall at few false alarms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from models.detectors.one_shot.cells import STRIDES, boxes_of, maps_of
from models.detectors.overlap import without_overlaps
from models.evaluation.detection import AtFalseAlarms, judge, recall_at
from models.evaluation.detection import Photo as Judged
from models.training.detection.photos import Photo
from models.training.detection.scenes import Material, SceneRecipe, make_scene
from models.training.detection.targets import targets_for
from models.training.loop import jit
from models.training.recipe import Recipe

if TYPE_CHECKING:
    import keras

FALSE_ALARMS = 0.1  # an image, at which recall is read
OVERLAP = 0.4  # IoU above which a box has found a face, and above which two boxes are one
LEAST_SCORE = 0.15  # of boxes that are judged
SMALLEST_PX = 8  # mean side of the faces that validation asks for
UNSEEN = 0.02  # added to the score of a scene without faces, so that easy ones are still drawn


class Detection:
    """What the one-shot detector learns.

    Args:
        material: what scenes are made of.
        scenes: how they are drawn.
        validation: photos with faces, and scenes without.
        recipe: `batch_size`, `seed`.
        an_epoch: scenes an epoch.
        mine_every: epochs after which scenes without faces are weighted anew by the score of their worst false alarm;
            0 never.
    """

    judged = "val_recall"

    def __init__(
        self,
        material: Material,
        scenes: SceneRecipe,
        validation: Sequence[Photo],
        recipe: Recipe,
        *,
        an_epoch: int,
        mine_every: int,
    ) -> None:
        self._material, self._scenes, self._validation, self._recipe = material, scenes, validation, recipe
        self._mine_every = mine_every
        self.steps = an_epoch // recipe.batch_size
        evenly = np.full(len(material.empty), 1 / max(1, len(material.empty)))
        self.state = {"mined": evenly}

    def compile(self, model: keras.Model, optimiser: keras.optimizers.Optimizer) -> None:
        """Compiles the network with the detection loss."""
        from models.training.detection.loss import DetectionLoss

        model.compile(optimizer=optimiser, loss=DetectionLoss(), jit_compile=jit())

    def before_epoch(self, model: keras.Model, epoch: int) -> None:
        """Nothing: every epoch sees scenes of the same size."""

    def batches(self, epoch: int) -> keras.utils.PyDataset:
        """Returns the scenes of an epoch with their targets: a function of seed, epoch and what was mined."""
        import keras

        material = replace(self._material, weights=self.state["mined"])
        recipe, scenes, steps = self._recipe, self._scenes, self.steps
        maps = maps_of(scenes.side, scenes.side)

        class Batches(keras.utils.PyDataset):
            def __len__(self) -> int:
                return steps

            def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
                numbers = range(step * recipe.batch_size, (step + 1) * recipe.batch_size)
                made = [make_scene(material, scenes, (recipe.seed, epoch, number)) for number in numbers]
                targets = [targets_for(maps, scene.boxes, scene.ignored) for scene in made]
                return np.stack([scene.pixels for scene in made]), np.stack(targets)

        return Batches()

    def curves(self, history: Mapping[str, Any]) -> dict[str, float]:
        """Returns the loss in training."""
        return {"loss": float(history["loss"][-1])}

    def validate(self, model: keras.Model) -> dict[str, float]:
        """Returns recall at `FALSE_ALARMS` false alarms an image, and that number's threshold."""
        at = self.recall_at(model, FALSE_ALARMS)
        return {"val_recall": float(at.recall or 0.0), "val_threshold": float(at.score or 1.0)}

    def recall_at(self, model: keras.Model, false_alarms: float) -> AtFalseAlarms:
        """Returns recall and threshold at so many false alarms per held-out image."""
        photos = []
        for photo, answers in zip(self._validation, self._answers(model, self._validation), strict=True):
            found, scores = found_in(answers, self._side)
            small = np.sqrt(photo.boxes[:, 2:].prod(axis=1)) < SMALLEST_PX
            known = np.concatenate([photo.boxes, photo.ignored]).astype(np.float64)
            ignored = np.concatenate([small, np.ones(len(photo.ignored), bool)])
            photos.append(Judged(known, None, ignored, found, scores))
        return recall_at(judge(photos, least_overlap=OVERLAP).curve, false_alarms)

    def epoch_done(self, model: keras.Model, epoch: int) -> None:
        """Weights the scenes without faces by their worst false alarm, every few epochs."""
        if not self._mine_every or (epoch + 1) % self._mine_every:
            return
        worst = [float(answers[:, 0].max()) for answers in self._answers(model, self._material.empty)]
        weights = 1 / (1 + np.exp(-np.asarray(worst, np.float64))) + UNSEEN
        self.state["mined"] = weights / weights.sum()

    @property
    def _side(self) -> int:
        """Pixels of the square that photos are padded to; what does not fit is cut off."""
        longest = max((max(photo.pixels.shape[:2]) for photo in self._validation), default=self._scenes.side)
        return -(-longest // STRIDES[-1]) * STRIDES[-1]

    def _answers(self, model: keras.Model, photos: Sequence[Photo]) -> list[np.ndarray]:
        """Returns (cells, 5) answers of each photo, on a square of one size."""
        side, batch = self._side, self._recipe.batch_size
        answers: list[np.ndarray] = []
        for first in range(0, len(photos), batch):
            images = np.zeros((batch, side, side, 3), np.uint8)
            some = photos[first : first + batch]
            for row, photo in enumerate(some):
                pixels = photo.pixels[:side, :side]
                images[row, : pixels.shape[0], : pixels.shape[1]] = pixels
            answers.extend(np.asarray(model.predict_on_batch(images))[: len(some)])
        return answers


def found_in(answers: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (m, 4) boxes and (m,) scores of one square image's (cells, 5) answers, overlaps filtered."""
    boxes, first = [], 0
    for one in maps_of(side, side):
        cells = answers[first : first + one.rows * one.columns].reshape(one.rows, one.columns, -1)
        boxes.append(boxes_of(cells, one.stride).reshape(-1, 4))
        first += one.rows * one.columns
    scores = 1 / (1 + np.exp(-answers[:, 0].astype(np.float64)))
    likely = np.flatnonzero(scores >= LEAST_SCORE)
    kept = likely[without_overlaps(np.concatenate(boxes)[likely], scores[likely], threshold=OVERLAP)]
    return np.concatenate(boxes)[kept].astype(np.float64), scores[kept]
