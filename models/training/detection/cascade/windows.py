"""Windows that the cascade's networks learn from: faces moved and scaled on the fly, and places without faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from models.detectors.cascade.calibration import OFFSETS, PATTERNS, SCALES
from models.detectors.cascade.overlaps import overlap
from models.detectors.cascade.windows import Reductions
from models.training.detection.photos import Photo
from models.training.detection.scenes import Material

CONTEXT = 2  # sides of a face that a stored patch shows: any pattern lies inside, turned or not
LARGEST = 48  # pixels: windows are stored at this side, and reduced to those of smaller networks
LEAST_SHARE = 0.4  # of a network's side: smaller faces would only show how enlarging looks
LEAST_PX = LEAST_SHARE * 12
EACH = 8  # windows anywhere that one drawn photo gives: more photos cost more than more windows
APART = 0.3  # intersection over union with every face: below, a window shows none (as MTCNN)


def squares_of(boxes: np.ndarray) -> np.ndarray:
    """Returns (m, 3) float32: the square of the longer side around the centre of each box x, y, width, height."""
    side = boxes[:, 2:].max(axis=1, initial=0)
    corner = boxes[:, :2] + boxes[:, 2:] / 2 - side[:, None] / 2
    return np.concatenate([corner, side[:, None]], axis=1).astype(np.float32)


# --- faces --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FacePatches:
    """Faces with what is around them, upright, in the middle of a patch.

    Attributes:
        pixels: (n, 2 * side, 2 * side, 3) uint8; the face's square has `side` pixels.
        side: of the network's windows.
        chances: (n,) float64 of being drawn, with the sum 1.
        sizes: (n,) float32, the side of the face's square in its photo, in pixels.
    """

    pixels: np.ndarray
    side: int
    chances: np.ndarray
    sizes: np.ndarray

    def reduced_to(self, side: int) -> FacePatches:
        """Returns the patches for a smaller network, and only faces that are large enough for it.

        Args:
            side: of which this one's is a multiple.
        """
        chances = self.chances * (self.sizes >= LEAST_SHARE * side)
        return FacePatches(averaged(self.pixels, self.side // side), side, chances / chances.sum(), self.sizes)


def averaged(windows: np.ndarray, factor: int) -> np.ndarray:
    """Returns (n, h / factor, w / factor, 3) uint8, the means of squares of (n, h, w, 3) pixels."""
    if factor == 1:
        return windows
    size = (windows.shape[2] // factor, windows.shape[1] // factor)
    out = np.empty((len(windows), size[1], size[0], 3), np.uint8)
    for number, window in enumerate(windows):
        out[number] = cv2.resize(window, size, interpolation=cv2.INTER_AREA)
    return out


def face_patches(material: Material, seed: int) -> FacePatches:
    """Returns the patches of all faces of the photos and tiles, for windows of `LARGEST` pixels."""
    draw = np.random.default_rng([seed, 0])
    found, chances, sizes = [], [], []
    for photos, share in [*material.photos, *material.tiles]:
        squares = [squares_of(photo.boxes) for photo in photos]
        squares = [some[some[:, 2] >= LEAST_PX] for some in squares]
        for photo, some in zip(photos, squares, strict=True):
            found.append(_patches(photo, some, material.empty, draw))
            sizes.append(some[:, 2])
        count = sum(map(len, squares))
        chances.append(np.full(count, share / max(1, count)))
    together = np.concatenate(chances)
    return FacePatches(np.concatenate(found), LARGEST, together / together.sum(), np.concatenate(sizes))


def _patches(photo: Photo, squares: np.ndarray, empty: Sequence[Photo], draw: np.random.Generator) -> np.ndarray:
    around = np.asarray([-(CONTEXT - 1) / 2, -(CONTEXT - 1) / 2, CONTEXT - 1], np.float32)
    wide = squares + squares[:, 2:] * around
    patches = Reductions(photo.pixels).windows(wide, CONTEXT * LARGEST)
    for patch, square in zip(patches, wide, strict=True):
        if draw.random() < 0.7:  # else the photo's border is repeated, as it is in use
            _surround(patch, square, photo.pixels.shape, empty, draw)
    return patches


def _surround(
    patch: np.ndarray, square: np.ndarray, shape: tuple[int, ...], empty: Sequence[Photo], draw: np.random.Generator
) -> None:
    """Puts a piece of a scene where the patch shows what lies outside its photo."""
    size = len(patch)
    steps = (np.arange(size) + 0.5) / size * square[2]
    x, y = square[0] + steps, square[1] + steps
    outside = ~(((y >= 0) & (y < shape[0]))[:, None] & ((x >= 0) & (x < shape[1]))[None])
    if outside.any():
        scene = empty[int(draw.integers(len(empty)))].pixels
        patch[outside] = Reductions(scene).windows(_anywhere(scene, 1, draw), size)[0][outside]


def face_windows(faces: FacePatches, patterns: np.ndarray, draw: np.random.Generator, turn: float = 12.0) -> np.ndarray:
    """Returns (n, side, side, 3) uint8 windows that lie to drawn faces as the patterns say; half of the faces mirrored.

    Args:
        patterns: (n, 3) scale, dx, dy.
        turn: standard deviation in degrees by which half of the faces are turned.
    """
    count, side, size = len(patterns), faces.side, CONTEXT * faces.side
    chosen = draw.choice(len(faces.pixels), count, p=faces.chances)
    mirrored = draw.random(count) < 0.5
    angles = np.radians(draw.normal(0, turn, count) * (draw.random(count) < 0.5)).clip(-0.4, 0.4)
    steps = ((np.arange(side) + 0.5) / side - 0.5) * side
    x = steps[None, None, :] * patterns[:, 0, None, None]
    y = steps[None, :, None] * patterns[:, 0, None, None]
    cos, sin = np.cos(angles)[:, None, None], np.sin(angles)[:, None, None]
    shift = patterns[:, 1:] * np.where(mirrored, -1, 1)[:, None] ** [1, 0] * side
    xs = x * cos - y * sin + shift[:, 0, None, None] + size / 2 - 0.5
    ys = x * sin + y * cos + shift[:, 1, None, None] + size / 2 - 0.5
    out = np.empty((count, side, side, 3), np.uint8)
    for number, index in enumerate(chosen):
        maps = (xs[number].astype(np.float32), ys[number].astype(np.float32))
        window = cv2.remap(faces.pixels[index], *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        out[number] = window[:, ::-1] if mirrored[number] else window
    return out


def near_patterns(count: int, draw: np.random.Generator) -> np.ndarray:
    """Returns (count, 3) float32 patterns as detection meets them: half as wide as calibration's, half less."""
    width = np.where(draw.random(count) < 0.5, 1.0, 0.5)
    scale = np.exp(draw.uniform(np.log(SCALES[0]), np.log(SCALES[-1]), count) * width)
    moved = draw.uniform(OFFSETS[0], OFFSETS[-1], (count, 2)) * width[:, None]
    return np.concatenate([scale[:, None], moved], axis=1).astype(np.float32)


def calibration_pairs(faces: FacePatches, count: int, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns (count, side, side, 3) uint8 windows and (count,) int32 their patterns, drawn evenly."""
    classes = draw.integers(len(PATTERNS), size=count).astype(np.int32)
    return relit(face_windows(faces, PATTERNS[classes], draw, turn=6.0), draw), classes


# --- places without faces -----------------------------------------------------------------------------------------


def empty_windows(material: Material, count: int, seed: int) -> np.ndarray:
    """Returns (about count, 48, 48, 3) uint8: half anywhere in scenes without faces, half in photos beside faces."""
    draw = np.random.default_rng([seed, 1])
    photos = [photo for some, _ in material.photos for photo in some]
    found = []
    for some in (material.empty, photos):
        for index in draw.integers(len(some), size=-(-count // (2 * EACH))):
            photo = some[index]
            squares = np.concatenate([_anywhere(photo.pixels, EACH, draw), _beside(photo, 2, draw)])
            found.append(Reductions(photo.pixels).windows(apart(squares, photo), LARGEST))
    return np.concatenate(found)


def apart(squares: np.ndarray, photo: Photo) -> np.ndarray:
    """Returns those of the squares that show no face of the photo, nor anything that was not decided."""
    known = squares_of(np.concatenate([photo.boxes, photo.ignored]))
    return np.asarray(squares[(overlap(squares, known) < APART).all(axis=1)])


def _anywhere(pixels: np.ndarray, count: int, draw: np.random.Generator) -> np.ndarray:
    height, width = pixels.shape[:2]
    most = min(height, width)
    side = np.exp(draw.uniform(np.log(min(12, most)), np.log(most), count))
    corner = draw.random((count, 2)) * (np.asarray([width, height]) - side[:, None])
    return np.concatenate([corner, side[:, None]], axis=1).astype(np.float32)


def _beside(photo: Photo, each: int, draw: np.random.Generator) -> np.ndarray:
    """Returns squares that show parts of faces, or faces and much around them."""
    faces = squares_of(np.repeat(photo.boxes, each, axis=0))
    side = faces[:, 2] * np.exp(draw.uniform(np.log(0.35), np.log(2.5), len(faces)))
    reach = np.maximum(side, faces[:, 2])[:, None] * draw.uniform(-0.9, 0.9, (len(faces), 2))
    corner = faces[:, :2] + faces[:, 2:] / 2 + reach - side[:, None] / 2
    squares = np.concatenate([corner, side[:, None]], axis=1).astype(np.float32)
    return squares[side >= 10]


# --- light and sharpness ------------------------------------------------------------------------------------------


def relit(windows: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Returns the windows in other light, three in ten grey, one in five less sharp: the same shape and type."""
    count, side = windows.shape[:2]
    values = np.linspace(0, 1, 256, dtype=np.float32)[None] ** np.exp(draw.normal(0, 0.25, (count, 1)))
    curves = (values - 0.5) * np.exp(draw.normal(0, 0.2, (count, 1))) + 0.5 + draw.normal(0, 0.08, (count, 1))
    tables = np.clip(curves * 255, 0, 255).astype(np.uint8)
    grey, blurred = (np.asarray(draw.random(count) < share) for share in (0.3, 0.2))
    factors = np.asarray(draw.uniform(0.4, 0.9, count))
    out = np.empty_like(windows)
    for number, window in enumerate(windows):
        one = cv2.LUT(window, tables[number])
        if grey[number]:
            one = cv2.cvtColor(cv2.cvtColor(one, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        if blurred[number]:
            small = max(6, round(side * factors[number]))
            one = cv2.resize(cv2.resize(one, (small, small), interpolation=cv2.INTER_AREA), (side, side))
        out[number] = one
    return out
