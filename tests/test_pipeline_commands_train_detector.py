"""`train-detector`: the recipe and its sets, a whole small training, and a resume that changes nothing."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from models.training.detection.photos import Photo
from models.training.detection.scenes import NO_BOXES
from pipeline.cli import main
from pipeline.errors import UsageError
from pipeline.run.detection_sets import held_out, read_sets
from pipeline.settings.detector_recipe import load_recipe

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "configs/detectors/one_shot.yaml"
SHARED = ROOT.parent / "shared/data"


def write_archive(path: Path, images: dict[str, np.ndarray]) -> None:
    with tarfile.open(path, "w") as out:
        for name, pixels in images.items():
            data = cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            out.addfile(entry, io.BytesIO(data))


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as out:
        writer = csv.DictWriter(out, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a set of photos, one of tiles and one of scenes: a bright square is a face."""
    folder = tmp_path_factory.mktemp("sets")
    draw = np.random.default_rng(0)
    photos, faces = {}, []
    for number in range(6):
        pixels = draw.integers(0, 60, (64, 64, 3)).astype(np.uint8)
        pixels[10:34, 20:44] = 230
        photos[f"{number}.png"] = pixels
        faces.append({"image": f"{number}.png", "x": 20, "y": 10, "w": 24, "h": 24, "group": number})
    write_archive(folder / "photos.tar", photos)
    write_table(folder / "photos.csv", faces)
    write_archive(folder / "tiles.tar", {"s.png": draw.integers(0, 256, (96, 96, 3)).astype(np.uint8)})
    tile = {"sheet": "s.png", "row": 0, "col": 0, "x": 20, "y": 20, "w": 50, "h": 50, "occlusion": "none"}
    write_table(folder / "tiles.csv", [{**tile, "box_from": "human", "group": "a"}])
    write_archive(folder / "empty.tar", {f"{n}.png": np.full((40, 40, 3), 20 * n, np.uint8) for n in range(6)})
    write_table(folder / "scores.csv", [{"image": f"{n}.png", "score": 0.9 if n == 1 else 0.1} for n in range(6)])
    return folder


RECIPE: dict[str, Any] = {
    "network": {"stem": [0, 4], "widths": [4, 4, 8], "depths": [0, 0, 0], "join": 4},
    "training": {
        "epochs": 2, "scenes_an_epoch": 8, "batch_size": 4, "precision": "float32", "ema_decay": 0.5, "mine_every": 1,
    },
    "scenes": {"side": 64, "smallest": 8.0, "largest": 30.0},
    "sets": {
        "validation_every": 3,
        "photos": [{"archive": "photos.tar", "table": "photos.csv", "maps": {"": [0.0, 0.0, 1.0, 1.0]}}],
        "tiles": [{"archive": "tiles.tar", "table": "tiles.csv", "maps": {"human": [0.0, 0.0, 1.0, 1.0]}}],
        "empty": [{"archive": "empty.tar", "keep_out": [3, 2], "scores": "scores.csv", "above": 0.5}],
    },
}  # fmt: skip


def write_recipe(path: Path, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump({**RECIPE, **changes}))
    return path


# --- the recipe and its sets ------------------------------------------------------------------------------------------


def test_the_recipe_that_ships_is_the_default_one() -> None:
    shipped = load_recipe(SHIPPED)[0]
    assert shipped.network == type(shipped.network)()
    assert shipped.training == type(shipped.training)()
    assert shipped.scenes == type(shipped.scenes)()


@pytest.mark.parametrize(
    "text, words",
    [
        ("sets: [", "is not YAML"),
        ("7", "holds no sections"),
        ("training: {epochs: 0}", "training.epochs: input should be greater than or equal to 1"),
        ("training: {epoch: 2}", "training.epoch: extra inputs are not permitted"),
        ("scenes: {side: 100}", "scenes.side: input should be a multiple of 32"),
    ],
)
def test_a_wrong_recipe_is_refused_by_name(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"--recipe .*r\.yaml") as caught:
        load_recipe(tmp_path / "r.yaml")
    assert words in str(caught.value)


def test_sets_are_split_by_group_and_scenes_are_kept_out(data: Path, tmp_path: Path) -> None:
    found = read_sets(load_recipe(write_recipe(tmp_path / "r.yaml"))[0].sets, data)
    ((photos, share),) = found.material.photos
    assert ([photo.group for photo in photos], share) == (["1", "2", "4", "5"], 1.0)
    assert len(found.material.tiles[0][0]) == 1
    # of the six scenes 1.png is left out for its score; of the five left the third is kept out
    assert [int(scene.pixels[0, 0, 0]) for scene in found.material.empty] == [0, 40, 80, 100]
    assert [photo.group for photo in found.validation] == ["0", "3", ""]
    assert len(found.validation[-1].boxes) == 0


def test_crops_are_drawn_like_tiles(data: Path, tmp_path: Path) -> None:
    crops = [{"archive": "empty.tar", "box": [0.0, 0.0, 0.5, 1.0], "share": 0.25}]
    recipe = write_recipe(tmp_path / "r.yaml", sets={**RECIPE["sets"], "crops": crops})
    (_, tiles), (faces, share) = read_sets(load_recipe(recipe)[0].sets, data).material.tiles
    assert (tiles, share, len(faces)) == (1.0, 0.25, 6)
    assert faces[0].boxes.tolist() == [[0, 0, 20, 40]]


def test_what_has_no_group_is_split_by_its_number() -> None:
    photo = Photo(np.zeros((1, 1, 3), np.uint8), NO_BOXES, NO_BOXES)
    assert [number for number in range(9) if held_out(number, photo, 4)] == [0, 4, 8]


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"photos": [{"archive": "gone.tar", "table": "photos.csv"}]}, "gone.tar cannot be read"),
        (
            {"photos": [{"archive": "photos.csv", "table": "photos.csv"}]},
            "photos.csv is damaged or not a set of this kind",
        ),
        (
            {"photos": [{"archive": "photos.tar", "table": "scores.csv"}]},
            "photos.tar is damaged or not a set of this kind",
        ),
    ],
)
def test_a_set_that_cannot_be_read_is_named(data: Path, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", sets={**RECIPE["sets"], **changes})
    with pytest.raises(UsageError, match=words):
        read_sets(load_recipe(recipe)[0].sets, data)


@pytest.mark.skipif(not SHARED.exists(), reason="the sets that the recipe names are not there")
@pytest.mark.slow
def test_the_recipe_that_ships_reads_its_sets() -> None:
    found = read_sets(load_recipe(SHIPPED)[-1].sets, SHARED)
    assert [len(photos) for photos, _ in found.material.photos] == [1804, 861, 376]
    assert [len(tiles) for tiles, _ in found.material.tiles] == [3200, 1800, 1300, 1830, 28709]
    assert (len(found.material.empty), len(found.validation)) == (4139, 276 + 1104)


# --- the command ------------------------------------------------------------------------------------------------------


def train(data: Path, output: Path, recipe: Path, *more: str) -> int:
    return main(["train-detector", "--recipe", str(recipe), "--data", str(data), "--output", str(output), *more])


def test_a_training_ends_with_a_model_that_label_takes(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from models.detectors.options import OneShotOptions
    from models.detectors.registry import DetectorSpec

    output, recipe = tmp_path / "out", write_recipe(tmp_path / "r.yaml")
    assert train(data, output, recipe) == 0
    printed = capsys.readouterr()
    assert f"--set faces.one_shot.model={output / 'one_shot.onnx'}" in printed.out
    assert "4 photos with 4 faces, 1 tiles, 4 scenes without faces, 3 images held out" in printed.err
    assert "epoch 2 of 2: loss " in printed.err
    detector = DetectorSpec(
        "one_shot", OneShotOptions(model=str(output / "one_shot.onnx"), score_threshold=0.001)
    ).load()
    detector.detect_batch([np.zeros((64, 64, 3), np.uint8)])
    card = json.loads((output / "one_shot.json").read_text())
    assert (card["detector"], card["epoch"]) == ("one_shot", 2.0)
    assert len((output / "history.csv").read_text().splitlines()) == 3

    before = (output / "one_shot.onnx").read_bytes()
    assert train(data, output, recipe, "--quiet") == 0  # finished: nothing is trained, the same model is written
    assert (output / "one_shot.onnx").read_bytes() == before
    assert capsys.readouterr().err == ""
    assert train(data, output, recipe, "--seed", "5") == 2
    assert "holds a training with another recipe (training.seed: 0 there, 5 here)" in capsys.readouterr().err


def test_a_second_part_goes_on_from_the_first_ones_weights(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path / "r.yaml")
    assert train(data, tmp_path / "first", recipe, "--quiet") == 0
    still = {**RECIPE["training"], "learning_rate": 1e-12, "epochs": 1, "weight_decay": 0.0}
    second = write_recipe(tmp_path / "s.yaml", training=still)
    start = tmp_path / "first" / "weights.npz"
    assert train(data, tmp_path / "second", second, "--quiet", "--start", str(start)) == 0
    with np.load(start) as before, np.load(tmp_path / "second" / "weights.npz") as after:
        assert all(np.allclose(before[name], after[name]) for name in before.files if "moving" not in name)
    other = write_recipe(tmp_path / "o.yaml", network={**RECIPE["network"], "join": 8})
    assert train(data, tmp_path / "other", other, "--start", str(start)) == 2
    assert "weights.npz has the weights of another network" in capsys.readouterr().err
    assert train(data, tmp_path / "other", other, "--start", str(tmp_path / "gone.npz")) == 2
    assert "gone.npz cannot be read: No such file" in capsys.readouterr().err


def test_the_parts_of_a_recipe_are_trained_one_after_the_other(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    still = {"learning_rate": 1e-12, "epochs": 1, "weight_decay": 0.0}
    parts = [{"training": {"epochs": 1}}, {"network": {"depths": [0, 1, 0]}, "training": still}]
    recipe = write_recipe(tmp_path / "r.yaml", parts=parts, scores={"score": 0.6, "false_alarms": 0.5})
    assert [part.network.depths for part in load_recipe(recipe)] == [[0, 0, 0], [0, 1, 0]]
    assert load_recipe(recipe)[1].training.batch_size == RECIPE["training"]["batch_size"]
    assert train(data, tmp_path / "out", recipe) == 0
    assert "part 2 of 2" in capsys.readouterr().err
    with (
        np.load(tmp_path / "out" / "part-1" / "weights.npz") as before,
        np.load(tmp_path / "out" / "weights.npz") as after,
    ):
        assert all(np.allclose(before[name], after[name]) for name in before.files if "moving" not in name)
    at = json.loads((tmp_path / "out" / "one_shot.json").read_text())["scores_from"]
    assert (at["allowed"], at["recall"] is not None) == (0.5, True)


@pytest.mark.parametrize("parts", [[], 3, ["network"]])
def test_parts_that_are_no_sections_are_refused(tmp_path: Path, parts: Any) -> None:
    with pytest.raises(UsageError, match="parts is not a list of sections"):
        load_recipe(write_recipe(tmp_path / "r.yaml", parts=parts))


def test_what_it_needs_is_asked_for_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train-detector", "--output", str(tmp_path)]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "pipeline: error: train-detector needs --recipe and --data; see --help"
    ]
