"""Training scenes of one size, made on the fly: each a function of a seed and its number alone.

Three kinds: a photo cropped and scaled so that one of its faces has a drawn size; a scene without faces with tiles of
faces, and of things that are none, pasted in; scenes without faces. Then light, colour, blur and compression.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from models.training.detection.photos import Photo

NO_BOXES = np.zeros((0, 4), np.float32)


@dataclass(frozen=True)
class SceneRecipe:
    """How scenes are drawn.

    Attributes:
        side: pixels of a scene, a multiple of 32.
        photos, pasted: shares of scenes from photos with faces, and with pasted tiles; the others have no face.
        smallest, largest: mean side of the drawn face in pixels, drawn with equal chance on a logarithmic scale.
        enlarge: how much a photo may be enlarged at most.
        unlearned: mean side in pixels under which a face is ignored.
        seen: share of a face that must lie inside its scene; a face cut off more is ignored.
        covered: share of the faces of photos of which a part is covered by a piece of another scene.
        blurred: share of the photos that are out of focus, by 2 to 8 % of the drawn face's side.
        rotation: largest turn of a photo in degrees, for 4 in 10 of the photos.
        joined: share of the scenes from photos that show four photos.
        hard: share of scenes without faces that are drawn by their weight (`Material.weights`), not evenly.
    """

    side: int = 256
    photos: float = 0.6
    pasted: float = 0.15
    smallest: float = 8.0
    largest: float = 210.0
    enlarge: float = 2.0
    unlearned: float = 7.0
    seen: float = 0.6
    covered: float = 0.0
    blurred: float = 0.0
    rotation: float = 20.0
    joined: float = 0.5
    hard: float = 0.5


@dataclass(frozen=True)
class Material:
    """What scenes are made of.

    Attributes:
        photos: sets of photos with faces, each with the share of drawn photos.
        tiles: sets of tiles with one face each, with shares.
        empty: scenes without faces.
        weights: (empty,) how often each is drawn among the hard ones; empty for evenly.
    """

    photos: Sequence[tuple[Sequence[Photo], float]]
    tiles: Sequence[tuple[Sequence[Photo], float]]
    empty: Sequence[Photo]
    weights: np.ndarray = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True, slots=True)
class Scene:
    """One training image.

    Attributes:
        pixels: (side, side, 3) uint8 RGB.
        boxes: (m, 4) float32 faces to find.
        ignored: (k, 4) float32 where either answer is right.
    """

    pixels: np.ndarray
    boxes: np.ndarray
    ignored: np.ndarray


def make_scene(material: Material, recipe: SceneRecipe, seed: Sequence[int]) -> Scene:
    """Returns the scene of a seed: a function of its arguments alone."""
    draw = np.random.default_rng(list(seed))
    kind = draw.random()
    if kind < recipe.photos:
        scene = _from_photo(material, recipe, draw)
    elif kind < recipe.photos + recipe.pasted:
        scene = _pasted(material, recipe, draw)
    else:
        scene = Scene(_empty(material, recipe, draw), NO_BOXES, NO_BOXES)
    scene = _flipped(scene) if draw.random() < 0.5 else scene
    return Scene(changed(scene.pixels, draw), scene.boxes, scene.ignored)


def _pick(sets: Sequence[tuple[Sequence[Photo], float]], draw: np.random.Generator) -> Photo:
    shares = np.asarray([share for _, share in sets])
    photos = sets[int(draw.choice(len(sets), p=shares / shares.sum()))][0]
    return photos[int(draw.integers(len(photos)))]


def _log_uniform(low: float, high: float, draw: np.random.Generator) -> float:
    return float(np.exp(draw.uniform(np.log(low), np.log(max(low, high)))))


# --- photos with faces --------------------------------------------------------------------------------------------


def _from_photo(material: Material, recipe: SceneRecipe, draw: np.random.Generator) -> Scene:
    """Returns a scene of one photo, or of four side by side: more faces for the same work."""
    side = recipe.side
    if draw.random() >= recipe.joined:
        return _part_of_photo(material, recipe, (side, side), draw)
    scene = Scene(np.empty((side, side, 3), np.uint8), NO_BOXES, NO_BOXES)
    x, y = (int(value) for value in draw.integers(side // 4, side * 3 // 4, 2))
    for top, bottom in ((0, y), (y, side)):
        for left, right in ((0, x), (x, side)):
            part = _part_of_photo(material, recipe, (bottom - top, right - left), draw)
            scene.pixels[top:bottom, left:right] = part.pixels
            boxes, ignored = (some + np.asarray([left, top, 0, 0], np.float32) for some in (part.boxes, part.ignored))
            scene = Scene(scene.pixels, np.concatenate([scene.boxes, boxes]), np.concatenate([scene.ignored, ignored]))
    return scene


def _part_of_photo(material: Material, recipe: SceneRecipe, size: tuple[int, int], draw: np.random.Generator) -> Scene:
    """Returns (height, width) pixels of a photo, with one of its faces at a drawn place in a drawn size."""
    photo = _pick(material.photos, draw)
    turn = draw.uniform(-recipe.rotation, recipe.rotation) if draw.random() < 0.4 else 0.0
    scale, middle = draw.uniform(0.5, 2.0), np.asarray(photo.pixels.shape[1::-1]) / 2
    if len(photo.boxes):
        face = photo.boxes[int(draw.integers(len(photo.boxes)))]
        side = float(np.sqrt(face[2] * face[3]))
        largest = min(recipe.largest, recipe.enlarge * side, 0.85 * min(size))
        scale, middle = _log_uniform(recipe.smallest, largest, draw) / side, face[:2] + face[2:] / 2
    pixels, shrunk = _shrunk(photo.pixels, scale)
    place = draw.uniform(0.12, 0.88, 2) * size[::-1]
    stretch = float(np.exp(draw.normal(0, 0.04)))
    linear = cv2.getRotationMatrix2D((0, 0), turn, scale / shrunk)[:, :2] * [stretch, 1 / stretch]
    move = np.concatenate([linear, (place - linear @ (middle * shrunk))[:, None]], axis=1)
    out = np.ascontiguousarray(_surroundings(material, size, draw))
    cv2.warpAffine(pixels, move, size[::-1], dst=out, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_TRANSPARENT)
    if recipe.blurred and draw.random() < recipe.blurred:
        out = _out_of_focus(out, photo, scale, draw)
    whole = np.concatenate([linear * shrunk, move[:, 2:]], axis=1)
    scene = _sorted_out(out, _moved(photo.boxes, whole), _moved(photo.ignored, whole), recipe)
    return _covered(scene, material, recipe, draw) if recipe.covered else scene


def _out_of_focus(pixels: np.ndarray, photo: Photo, scale: float, draw: np.random.Generator) -> np.ndarray:
    """Returns the pixels blurred by a share of the side of the photo's largest face: those behind it blur too."""
    if not len(photo.boxes):
        return pixels
    side = scale * float(np.sqrt(photo.boxes[:, 2:].prod(axis=1).max()))
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), max(0.3, min(8.0, draw.uniform(0.02, 0.08) * side))))


def _covered(scene: Scene, material: Material, recipe: SceneRecipe, draw: np.random.Generator) -> Scene:
    """Returns the scene with a quarter to a half of some faces covered from a side, as by a hand or a neighbour."""
    height, width = scene.pixels.shape[:2]
    for x, y, wide, tall in scene.boxes:
        if draw.random() >= recipe.covered:
            continue
        share, side = draw.uniform(0.25, 0.5), int(draw.integers(4))
        left, right, top, bottom = x, x + wide, y, y + tall
        if side == 0:
            right = x + wide * share
        elif side == 1:
            left = x + wide * (1 - share)
        elif side == 2:
            bottom = y + tall * share
        else:
            top = y + tall * (1 - share)
        first, last = (int(np.clip(value, 0, width)) for value in (left, right))
        upper, lower = (int(np.clip(value, 0, height)) for value in (top, bottom))
        if first < last and upper < lower:
            scene.pixels[upper:lower, first:last] = _piece(
                _scene(material, recipe, draw), lower - upper, last - first, draw
            )
    return scene


def _shrunk(pixels: np.ndarray, scale: float) -> tuple[np.ndarray, float]:
    """Returns the photo reduced by area if it is to shrink, and by how much: warping alone would alias."""
    if scale >= 0.8:
        return pixels, 1.0
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), size[0] / pixels.shape[1]


def _moved(boxes: np.ndarray, move: np.ndarray) -> np.ndarray:
    """Returns (m, 4) upright boxes of the same sides, scaled, around the moved centres."""
    middle = (boxes[:, :2] + boxes[:, 2:] / 2) @ move[:, :2].T + move[:, 2]
    sides = boxes[:, 2:] * np.linalg.norm(move[:, :2], axis=0)
    return np.concatenate([middle - sides / 2, sides], axis=1).astype(np.float32)


def _surroundings(material: Material, size: tuple[int, int], draw: np.random.Generator) -> np.ndarray:
    """Returns (height, width) of what shows beyond a photo's border: black as padding in use, a colour, a scene."""
    kind = draw.random()
    if kind < 0.25:
        return np.zeros((*size, 3), np.uint8)
    if kind < 0.35:
        return np.full((*size, 3), draw.integers(256, size=3), np.uint8)
    return _piece(material.empty[int(draw.integers(len(material.empty)))].pixels, *size, draw)


def _sorted_out(pixels: np.ndarray, boxes: np.ndarray, ignored: np.ndarray, recipe: SceneRecipe) -> Scene:
    """Returns the scene with faces that are cut off or too small among those ignored, and without those outside."""
    start = np.clip(boxes[:, :2], 0, pixels.shape[1::-1])
    end = np.clip(boxes[:, :2] + boxes[:, 2:], 0, pixels.shape[1::-1])
    seen = (end - start).prod(axis=1) / np.maximum(boxes[:, 2:].prod(axis=1), 1e-6)
    learned = (seen > recipe.seen) & (np.sqrt(boxes[:, 2:].prod(axis=1)) >= recipe.unlearned)
    return Scene(pixels, boxes[learned], np.concatenate([ignored, boxes[~learned & (seen > 0)]]))


# --- scenes without faces, and tiles in them ----------------------------------------------------------------------


def _empty(material: Material, recipe: SceneRecipe, draw: np.random.Generator) -> np.ndarray:
    """Returns one scene, or four smaller ones side by side."""
    if draw.random() < 0.35:
        return _piece(_scene(material, recipe, draw), recipe.side, recipe.side, draw)
    out = np.empty((recipe.side, recipe.side, 3), np.uint8)
    x, y = draw.integers(recipe.side // 4, recipe.side * 3 // 4, 2)
    for top, bottom in ((0, y), (y, recipe.side)):
        for left, right in ((0, x), (x, recipe.side)):
            out[top:bottom, left:right] = _piece(_scene(material, recipe, draw), bottom - top, right - left, draw)
    return out


def _scene(material: Material, recipe: SceneRecipe, draw: np.random.Generator) -> np.ndarray:
    if len(material.weights) and draw.random() < recipe.hard:
        return material.empty[int(draw.choice(len(material.empty), p=material.weights))].pixels
    return material.empty[int(draw.integers(len(material.empty)))].pixels


def _piece(pixels: np.ndarray, height: int, width: int, draw: np.random.Generator) -> np.ndarray:
    """Returns a piece of a scene, of 0.4 to 1.8 of its size, that fills (height, width)."""
    least = max(height / pixels.shape[0], width / pixels.shape[1])
    scale = max(least if draw.random() < 0.3 else 0.0, _log_uniform(0.4, 1.8, draw))
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    scaled = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    top = draw.integers(max(0, size[1] - height) + 1)
    left = draw.integers(max(0, size[0] - width) + 1)
    piece = np.asarray(scaled)[top : top + height, left : left + width]
    if piece.shape[:2] == (height, width):
        return piece
    below, beside = height - piece.shape[0], width - piece.shape[1]
    border = cv2.BORDER_CONSTANT if draw.random() < 0.5 else cv2.BORDER_REFLECT_101
    return np.asarray(cv2.copyMakeBorder(piece, 0, below, 0, beside, border, value=(0, 0, 0)))


def _pasted(material: Material, recipe: SceneRecipe, draw: np.random.Generator) -> Scene:
    """Returns a scene with up to six tiles of faces and up to four of other things: an edge alone is no face."""
    out = _empty(material, recipe, draw).copy()
    boxes: list[np.ndarray] = []
    taken: list[tuple[int, int, int]] = []
    for number in range(int(draw.integers(1, 7)) + int(draw.integers(0, 5))):
        face = number == 0 or draw.random() < 0.6
        photo = _pick(material.tiles, draw) if face else Photo(_scene(material, recipe, draw), NO_BOXES, NO_BOXES)
        side = round(_log_uniform(12, min(170, recipe.side * 2 / 3), draw))
        left, top = (int(value) for value in draw.integers(-side // 8, recipe.side - side * 7 // 8, 2))
        if any(abs(left - x) < max(side, other) and abs(top - y) < max(side, other) for x, y, other in taken):
            continue
        taken.append((left, top, side))
        _paste(out, photo.pixels, left, top, side)
        scale = np.asarray([side / photo.pixels.shape[1], side / photo.pixels.shape[0]])
        moved = photo.boxes * np.tile(scale, 2) + [left, top, 0, 0]
        boxes.append(moved.reshape(-1, 4))
    return _sorted_out(out, np.concatenate(boxes).astype(np.float32), NO_BOXES, recipe)


def _paste(out: np.ndarray, pixels: np.ndarray, left: int, top: int, side: int) -> None:
    interpolation = cv2.INTER_AREA if side < pixels.shape[0] else cv2.INTER_LINEAR
    tile = cv2.resize(pixels, (side, side), interpolation=interpolation)
    x, y = max(0, left), max(0, top)
    part = tile[y - top : out.shape[0] - top, x - left : out.shape[1] - left]
    out[y : y + part.shape[0], x : x + part.shape[1]] = part


# --- pixels -------------------------------------------------------------------------------------------------------


def _flipped(scene: Scene) -> Scene:
    width = scene.pixels.shape[1]
    boxes, ignored = scene.boxes.copy(), scene.ignored.copy()
    for some in (boxes, ignored):
        some[:, 0] = width - some[:, 0] - some[:, 2]
    return Scene(np.ascontiguousarray(scene.pixels[:, ::-1]), boxes, ignored)


def changed(pixels: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Returns (h, w, 3) uint8 RGB with other light, colour, sharpness and compression."""
    if draw.random() < 0.3:
        pixels = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if draw.random() < 0.2:
        pixels = _low_resolution(pixels, draw)
    if draw.random() < 0.15:
        pixels = cv2.GaussianBlur(pixels, (0, 0), draw.uniform(0.4, 1.5))
    pixels = _light(pixels, draw)
    if draw.random() < 0.1:
        noise = draw.normal(0, draw.uniform(2, 12), pixels.shape[:2]).astype(np.float32)
        pixels = np.clip(pixels + noise[..., None], 0, 255).astype(np.uint8)
    if draw.random() < 0.35:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(draw.integers(25, 90))]
        pixels = np.asarray(cv2.imdecode(cv2.imencode(".jpg", pixels, quality)[1], cv2.IMREAD_COLOR))
    return pixels


def _light(pixels: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Returns the pixels through one curve a channel: contrast, brightness, gamma, tint; sometimes lit from a side."""
    values = np.linspace(0, 1, 256, dtype=np.float32)[:, None] ** np.exp(draw.normal(0, 0.25))
    tint = np.exp(draw.normal(0, 0.06, 3)) if draw.random() < 0.5 else np.ones(3)
    curve = (values - 0.5) * np.exp(draw.normal(0, 0.2)) + 0.5 + draw.normal(0, 0.08)
    table = np.clip(curve * tint * 255, 0, 255).astype(np.uint8)
    pixels = cv2.LUT(pixels, table[None])
    if draw.random() < 0.12:
        ramp = np.linspace(draw.uniform(0.15, 0.8), 1.0, pixels.shape[1], dtype=np.float32)
        ramp = ramp[:: 1 if draw.random() < 0.5 else -1]
        pixels = (pixels * ramp[None, :, None]).astype(np.uint8)
    return pixels


def _low_resolution(pixels: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    height, width = pixels.shape[:2]
    factor = draw.uniform(0.4, 0.9)
    small = cv2.resize(pixels, (round(width * factor), round(height * factor)), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR))
