"""The lesson of the landmark network: faces cut, turned, mirrored and darkened on the fly, judged by the points' error.

The set is a tar of square crops with a table beside it: image, group, x0, y0 … x67, y67 in pixels of the crop.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from models.backbones.landmarks import POINTS, SIDE
from models.training.detection.photos import members
from models.training.loop import jit
from models.training.recipe import Recipe

if TYPE_CHECKING:
    import keras

SPANS = 0.62, 1.2  # side of the square that is cut, as a share of the stored crop's
SHIFT = 0.1  # of that square's side, either way
ROTATION = 20.0  # degrees, either way
JUDGED_SPAN = 0.85  # of the square at which faces are judged
EYES = 36, 45  # the outer corners, whose distance is the inter-ocular distance
MIRRORED = np.array(
    [
        *(*range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1)),
        *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),
        *(*range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), *range(67, 64, -1)),
    ]
)  # point i of a mirrored face was point MIRRORED[i]


@dataclass(frozen=True)
class Faces:
    """Square crops of one size with their points.

    Attributes:
        pixels: (n, side, side) uint8 grey.
        points: (n, 68, 2) float32 x and y in pixels of the crop.
        groups: (n,) the people; those of one person stay together.
    """

    pixels: np.ndarray
    points: np.ndarray
    groups: np.ndarray

    def __len__(self) -> int:
        return len(self.pixels)

    def only(self, rows: np.ndarray) -> Faces:
        """Returns the chosen rows."""
        return Faces(self.pixels[rows], self.points[rows], self.groups[rows])


def read_faces(archive: Path, table: Path) -> Faces:
    """Returns the faces of a set, in the archive's order.

    Raises:
        ValueError: a member is no image or has no row in the table.
    """
    with table.open(newline="", encoding="utf-8") as file:
        rows = {row["image"]: row for row in csv.DictReader(file)}
    pixels, points, groups = [], [], []
    for name, image in members(archive):
        if name not in rows:
            raise ValueError(f"{table} has no row of {name}")
        values = [[float(rows[name][f"{axis}{point}"]) for axis in "xy"] for point in range(POINTS)]
        pixels.append(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
        points.append(values)
        groups.append(rows[name]["group"])
    return Faces(np.stack(pixels), np.asarray(points, np.float32), np.asarray(groups))


def held_out(faces: Faces, share: int = 5) -> tuple[Faces, Faces]:
    """Returns (training, held out): every `share`-th group by name is held out."""
    out = sorted(set(faces.groups.tolist()), key=lambda group: (len(group), group))[::share]
    held = np.isin(faces.groups, out)
    return faces.only(~held), faces.only(held)


def cut(
    pixels: np.ndarray, points: np.ndarray, *, span: float, turn: float = 0.0, shift: tuple[float, float] = (0.0, 0.0)
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (48, 48) pixels of a square of the crop and the (68, 2) points in shares of its side.

    Args:
        span: side of the square, as a share of the crop's; beyond the crop the border pixels repeat.
        turn: degrees.
        shift: of the square's middle, x and y, in shares of its side.
    """
    side = len(pixels)
    middle = (side - 1) / 2
    scale = SIDE / (side * span)
    matrix = cv2.getRotationMatrix2D((middle, middle), turn, scale)
    wanted = (SIDE - 1) / 2 + np.asarray(shift) * SIDE
    matrix[:, 2] += wanted - middle
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    soft = cv2.GaussianBlur(pixels, (0, 0), 0.35 / scale) if scale < 1 else pixels  # warpAffine does not average
    made = cv2.warpAffine(soft, matrix, (SIDE, SIDE), flags=how, borderMode=cv2.BORDER_REPLICATE)
    moved = points @ matrix[:, :2].T + matrix[:, 2]
    return made, ((moved + 0.5) / SIDE).astype(np.float32)


def drawn(pixels: np.ndarray, points: np.ndarray, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns a random change of a face: (48, 48) uint8 pixels and (68, 2) points in shares of the side."""
    made, where = cut(
        pixels,
        points,
        span=float(np.exp(draw.uniform(*np.log(SPANS)))),
        turn=float(draw.uniform(-ROTATION, ROTATION)),
        shift=(float(draw.uniform(-SHIFT, SHIFT)), float(draw.uniform(-SHIFT, SHIFT))),
    )
    if draw.random() < 0.5:
        made, where = made[:, ::-1], (where * (-1, 1) + (1, 0))[MIRRORED]
    if draw.random() < 0.3:
        small = int(draw.integers(16, SIDE))
        made = cv2.resize(np.ascontiguousarray(made), (small, small), interpolation=cv2.INTER_AREA)
        made = cv2.resize(made, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    mean, contrast, light = made.mean(), draw.uniform(0.6, 1.4), draw.uniform(0.6, 1.25)
    toned = np.clip(((made - mean) * contrast + mean) * light, 0, 255)
    return np.rint(toned).astype(np.uint8), where.astype(np.float32)


@dataclass(frozen=True)
class PointError:
    """Errors of the points of faces, each a mean over the 68 points of a face.

    Attributes:
        pixels: (n,) distance in pixels of the 48-pixel crop.
        share: (n,) distance as a share of the inter-ocular distance, between the outer corners of the eyes.
    """

    pixels: np.ndarray
    share: np.ndarray


def point_error(found: np.ndarray, truth: np.ndarray) -> PointError:
    """Returns the errors of (n, 68, 2) points, both in shares of the side."""
    distance = np.linalg.norm(found - truth, axis=2).mean(axis=1)
    eyes = np.linalg.norm(truth[:, EYES[0]] - truth[:, EYES[1]], axis=1)
    return PointError(distance * SIDE, distance / eyes)


def judged_faces(faces: Faces) -> tuple[np.ndarray, np.ndarray]:
    """Returns (n, 48, 48, 1) uint8 crops at the judged size and their (n, 68, 2) points in shares of the side."""
    made = [cut(pixels, points, span=JUDGED_SPAN) for pixels, points in zip(faces.pixels, faces.points, strict=True)]
    return np.stack([one[0] for one in made])[..., None], np.stack([one[1] for one in made])


class Landmarks:
    """What the landmark network learns; `val_score` is 1 minus the error as a share of the inter-ocular distance."""

    judged = "val_score"

    def __init__(self, faces: Faces, validation: Faces, recipe: Recipe) -> None:
        self._faces, self._recipe = faces, recipe
        self._judged, self._truth = judged_faces(validation)
        self.steps = len(faces) // recipe.batch_size
        self.state: dict[str, np.ndarray] = {}

    def compile(self, model: keras.Model, optimiser: keras.optimizers.Optimizer) -> None:
        """Compiles the network with the mean distance along x and y."""
        model.compile(optimizer=optimiser, loss="mean_absolute_error", jit_compile=jit())

    def before_epoch(self, model: keras.Model, epoch: int) -> None:
        """Does nothing: every epoch has the same size."""

    def batches(self, epoch: int) -> keras.utils.PyDataset:
        """Returns the batches of an epoch; they depend only on seed and epoch."""
        import keras

        faces, recipe, steps = self._faces, self._recipe, self.steps
        order = np.random.default_rng([recipe.seed, epoch]).permutation(len(faces))

        class Batches(keras.utils.PyDataset):
            def __len__(self) -> int:
                return steps

            def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
                draw = np.random.default_rng([recipe.seed, epoch, step])
                rows = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
                made = [drawn(faces.pixels[row], faces.points[row], draw) for row in rows]
                return np.stack([one[0] for one in made])[..., None], np.stack([one[1] for one in made])

        return Batches()

    def curves(self, history: Mapping[str, Any]) -> dict[str, float]:
        """Returns the loss in training."""
        return {"loss": float(history["loss"][-1])}

    def validate(self, model: keras.Model) -> dict[str, float]:
        """Returns the errors of the held-out faces."""
        error = point_error(np.asarray(model.predict(self._judged, batch_size=128, verbose=0)), self._truth)
        share = float(error.share.mean())
        return {"val_score": 1 - share, "val_error_px": float(error.pixels.mean()), "val_error_share": share}

    def epoch_done(self, model: keras.Model, epoch: int) -> None:
        """Does nothing: the next epoch does not depend on the results."""
