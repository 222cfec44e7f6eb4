"""Settings: loading, refusing, fingerprints, showing."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.settings.describe import known_settings, to_yaml
from pipeline.settings.detector_recipe import load_recipe
from pipeline.settings.differences import differences
from pipeline.settings.load import SettingsError, load_settings
from pipeline.settings.schema import Settings
from transforms.formats.records import Limits

CONFIGS = Path(__file__).parents[1] / "configs"


def from_yaml(tmp_path: Path, text: str, *overrides: str) -> Settings:
    path = tmp_path / "settings.yaml"
    path.write_bytes(text.encode())
    return load_settings([path], overrides)


def refusal(*overrides: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings((), overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- loading


def test_defaults_are_those_of_the_contract() -> None:
    settings = load_settings()
    assert (settings.read.block_images, settings.read.block_bytes) == (256, 64 * 2**20)
    assert (settings.faces.detector, settings.faces.haar.detect_size, settings.faces.margin) == ("bundled", 640, 0.0)
    assert (settings.features.backbone, settings.features.weights, settings.features.pooling) == (
        "face_vgg",
        "bundled",
        "multi",
    )
    assert (settings.features.input_size, settings.features.batch_size) == (None, 64)
    assert (settings.head.path, settings.write.label_values) == ("bundled", None)


def test_limits_of_reading_are_those_of_the_formats() -> None:
    read = load_settings().read
    assert Limits() == Limits(max_image_bytes=read.max_image_bytes, max_pixels=read.max_pixels)


def test_set_is_stronger_than_a_file_and_a_later_file_than_an_earlier(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("faces: {margin: 0.2, max_faces: 3, haar: {min_neighbors: 7}}\n")
    (tmp_path / "b.yaml").write_text("faces:\n  margin: 0.3\n  max_faces: 4\n")
    faces = load_settings([tmp_path / "a.yaml", tmp_path / "b.yaml"], ["faces.max_faces=5"]).faces
    assert (faces.haar.min_neighbors, faces.margin, faces.max_faces) == (7, 0.3, 5)


@pytest.mark.parametrize("text", ["", "# nothing\n", "faces:\n", "---\n", "{}"])
def test_an_empty_file_or_section_sets_nothing(tmp_path: Path, text: str) -> None:
    assert from_yaml(tmp_path, text) == Settings()


def test_dotted_names_work_in_files(tmp_path: Path) -> None:
    assert from_yaml(tmp_path, "faces.margin: 0.25\n").faces.margin == 0.25


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("48", (48, 48)),
        ("48x96", (48, 96)),
        ("48X96", (48, 96)),
        ("[48, 96]", (48, 96)),
        ("'64'", (64, 64)),
        ("null", None),
    ],
)
def test_input_size_in_all_its_notations(text: str, size: tuple[int, int] | None) -> None:
    assert load_settings((), [f"features.input_size={text}"]).features.input_size == size


@pytest.mark.parametrize("text", ["0", "48x", "x48", "48x0", "[48]", "[1, 2, 3]", "4.5", "true", "-3", "48 96", "5000"])
def test_input_sizes_that_are_none(text: str) -> None:
    assert "allowed is a whole number, HEIGHTxWIDTH" in refusal(f"features.input_size={text}")


@pytest.mark.parametrize(
    ("raw", "label"),
    [("7", "7"), ("no", "no"), ("'null'", "null"), ("null", None), ("", None), ("true", "true"), ("a #b", "a #b")],
)
def test_set_takes_texts_as_they_stand(raw: str, label: str | None) -> None:
    assert load_settings((), [f"write.no_face_label={raw}"]).write.no_face_label == label


@pytest.mark.parametrize(("raw", "value"), [("1e-1", 0.1), (".5", 0.5), ("1", 1.0), ("0.25", 0.25)])
def test_numbers_in_all_their_notations(raw: str, value: float) -> None:
    assert load_settings((), [f"faces.margin={raw}"]).faces.margin == value


def test_words_in_files_are_words(tmp_path: Path) -> None:
    assert from_yaml(tmp_path, "write: {no_face_label: no, id_column: on}\n").write.no_face_label == "no"


def test_leading_zeros_are_not_octal() -> None:
    assert load_settings((), ["read.threads=010"]).read.threads == 10


@pytest.mark.parametrize(("backbone", "weights"), [("face_vgg", "bundled"), ("vgg16", "imagenet")])
def test_default_weights_follow_the_backbone(backbone: str, weights: str) -> None:
    assert load_settings((), [f"features.backbone={backbone}"]).features.weights == weights


def test_only_face_vgg_trains_on_the_middle_by_default() -> None:
    assert load_settings((), ["train.backbone=mobilenet"]).train.crop == 0
    assert load_settings((), ["train.backbone=mobilenet", "train.crop=64"]).train.crop == 64
    assert load_settings().train.crop == 40


# --- refusing


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("faces.detecter=haar", "unknown setting faces.detecter (--set); nearest is faces.detector"),
        ("detector=haar", "unknown setting detector (--set); nearest is faces.detector"),
        ("face.detector=haar", "nearest is faces.detector"),
        ("reed.batch_size=9", "nearest is features.batch_size"),
        ("qqqq.zzzz=1", "--help lists all settings"),
        ("faces=1", "faces (--set) is a section"),
        ("faces.detector", "is not key=value"),
        ("=1", "is not key=value"),
        ("faces.margin=[", "the value is not YAML"),
        ("faces.margin=.nan", "faces.margin is nan (--set); allowed is a number from 0 to 2"),
        (
            "faces.detector=dlib",
            "faces.detector is 'dlib' (--set); allowed is one of bundled, none, one_shot, cascade",
        ),
        ("features.batch_size=4", "features.batch_size is 4 (--set); allowed is a whole number from 8 to 65536"),
        ("features.batch_size='64'", "features.batch_size is '64' (--set); allowed is a whole number"),
        ("read.block_images=257", "allowed is a whole number from 1 to 256"),
        ("read.threads=2.0", "read.threads is 2.0 (--set)"),
        ("read.threads=true", "read.threads is true (--set)"),
        ("write.drop_folder=1", "allowed is true, false or null"),
        ("write.drop_folder=yes", "allowed is true, false or null"),
        (
            "head.path=",
            "head.path is null (--set); allowed is bundled, bundled/fer2013, bundled/ferplus, bundled/smile or a path",
        ),
        ("faces.margin={a: 1}", "faces.margin is {'a': 1}"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(override: str, words: str) -> None:
    assert words in refusal(override)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["faces.detector=yunet"], "needs faces.yunet.model"),
        (["features.weights=imagenet"], "no ImageNet weights of face_vgg"),
        (["features.backbone=vgg16", "features.weights=bundled"], "for vgg16 use imagenet"),
        (["train.start=imagenet"], "no ImageNet weights of face_vgg; set train.start to null"),
        (["train.backbone=vgg16", "train.start=bundled"], "for vgg16 use null, imagenet or a path"),
        (["train.input_size=32"], "train.crop is 40, but images are only 32 pixels wide: set train.crop=0"),
        (["train.crop=0", "train.progressive_sizes=[49]"], "has 49, but images are 48 pixels wide"),
        (["write.id_column=x", "write.label_column=x"], "are both 'x'"),
    ],
)
def test_contradictions_are_refused(overrides: list[str], words: str) -> None:
    assert words in refusal(*overrides)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("faces: {detecter: haar}", "unknown setting faces.detecter ("),
        ("faces:\n  margin: 1\n  margin: 2\n", "margin is set twice, line 3"),
        ("faces.margin: 1\nfaces: {margin: 2}\n", "faces.margin is set twice"),
        ("- a\n- b\n", "contains ['a', 'b']; write sections"),
        ("faces: 3", "is a section"),
        ("faces: [1]", "is a section"),
        ("faces: {", "is not YAML"),
        ("faces: {margin: 2024-01-01}", "faces.margin is '2024-01-01'"),
        ("write: {no_face_label: 7}", "put it in quotes"),
        ("&a faces: &b\n  margin: *b\n", "unknown setting faces.margin.margin"),
        ("x: !!python/object/apply:os.getcwd []\n", "is not YAML"),
        ("faces: {margin: {deep: {deeper: 1}}}", "unknown setting faces.margin"),
        ("? [a, b]\n: 1\n", "is not YAML"),
        ("\x00", "is not YAML"),
    ],
)
def test_wrong_files_are_refused_in_one_line_that_names_them(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        from_yaml(tmp_path, text)
    assert words in str(caught.value)
    assert "settings.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"--config .*gone\.yaml cannot be read: No such file"):
        load_settings([tmp_path / "gone.yaml"])
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings([tmp_path])


def test_a_file_that_is_no_settings_file_is_not_read_whole(tmp_path: Path) -> None:
    (tmp_path / "big.yaml").write_bytes(b"#" * (2**20 + 1))
    with pytest.raises(SettingsError, match="larger than"):
        load_settings([tmp_path / "big.yaml"])


def test_a_wrong_setting_is_a_wrong_command() -> None:
    assert issubclass(SettingsError, UsageError)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().faces.margin = 0.5  # type: ignore[misc]


# --- every setting is documented


@pytest.mark.parametrize("info", known_settings(), ids=lambda info: info.name)
def test_every_setting_says_what_it_is_and_takes_its_default(info) -> None:
    assert len(info.description) > 10
    assert info.allowed
    assert load_settings((), [f"{info.name}={info.default}"]) == Settings()


def words_of(setting: str) -> list[str]:
    [info] = [info for info in known_settings() if info.name == setting]
    return info.allowed.removeprefix("one of ").split(", ")


def test_words_are_those_of_the_tables() -> None:
    from models.backbones.backbone import POOLINGS
    from models.backbones.registry import BACKBONES
    from models.detectors.registry import DETECTORS

    assert words_of("faces.detector") == ["bundled", *DETECTORS]
    assert words_of("features.backbone") == list(BACKBONES)
    assert words_of("features.pooling") == list(POOLINGS)


def test_defaults_are_what_the_bundled_head_was_made_for() -> None:
    """Else the shortest command there is would be refused."""
    from models.heads.registry import BUNDLED_HEAD

    if not (BUNDLED_HEAD / "head.json").is_file():
        pytest.skip("no head is bundled yet")
    wanted = json.loads((BUNDLED_HEAD / "head.json").read_text())["features"]
    features = Settings().features
    assert {
        name: getattr(features, name) for name in ("backbone", "pooling", "flip_average", "flip_cut")
    }.items() <= wanted.items()


def test_settings_of_the_cascade_have_its_defaults() -> None:
    from models.detectors.options import CascadeOptions

    own = Settings().faces.cascade.model_dump()
    assert own == {name: getattr(CascadeOptions(), name) for name in own}


@pytest.mark.parametrize("bound", ["least", "most"])
@pytest.mark.parametrize("name", ["one_shot", "haar", "yunet"])
def test_detectors_take_what_is_allowed_and_have_the_same_defaults(name: str, bound: str) -> None:
    from models.detectors.registry import DETECTORS

    options = DETECTORS[name].options
    assert getattr(Settings().faces, name).model_dump() == dataclasses.asdict(options())
    allowed = {
        field.name: [float(text) for text in re.findall(r"[\d.]+", infos[0].allowed)]
        for field in dataclasses.fields(options)
        if (infos := [info for info in known_settings() if info.name == f"faces.{name}.{field.name}"])
        if field.name != "model"
    }
    at = 0 if bound == "least" else -1
    text = {info.name: info.allowed for info in known_settings()}
    values = {leaf: found[at] or 1e-9 * ("above" in text[f"faces.{name}.{leaf}"]) for leaf, found in allowed.items()}
    assert len(values) == len(dataclasses.fields(options)) - 1
    options(**values)


# --- differences


def test_differences_names_both_sides() -> None:
    old = {"faces": {"detector": "haar", "margin": 0.1, "gone": 1}, "digest": "a", "same": [1, 2]}
    new = {"faces": {"detector": "yunet", "margin": 0.1}, "digest": "b", "new": None, "same": [1, 2]}
    assert differences(old, new) == [
        "digest: a there, b here",
        "faces.detector: haar there, yunet here",
        "faces.gone: 1 there, not set here",
        "new: not set there, null here",
    ]
    assert differences(old, old) == []


# --- showing

LABELS = st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(label=LABELS, path=TEXT, margin=st.floats(0, 2), size=st.none() | st.tuples(*[st.integers(1, 4096)] * 2))
def test_printed_settings_read_back_to_the_same(tmp_path_factory, label, path, margin, size) -> None:
    settings = Settings.model_validate(
        {
            "write": {"no_face_label": label},
            "head": {"path": path},
            "faces": {"margin": margin},
            "features": {"input_size": size},
        }
    )
    file = tmp_path_factory.mktemp("printed") / "settings.yaml"
    file.write_text(to_yaml(settings), encoding="utf-8")
    assert load_settings([file]) == settings


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("**/*.yaml")), ids=lambda path: path.name)
def test_configs_that_ship_load_and_open_with_their_command(path: Path) -> None:
    recipe = path.parent.name == "detectors"  # of a detector's training, no settings of a run
    load_recipe(path) if recipe else load_settings([path])
    opening = path.read_text(encoding="utf-8").split("\n\n")[0]
    assert opening.startswith("# ")
    assert f"{'--recipe' if recipe else '--config'} configs/{path.relative_to(CONFIGS)}" in opening


def test_the_competitions_config_leaves_to_the_sample_what_the_sample_tells() -> None:
    write = load_settings([CONFIGS / "kaggle.yaml"]).write
    assert (write.label_values, write.drop_folder, write.drop_extension) == (None, None, None)


def test_there_are_configs() -> None:
    assert {"local.yaml", "kaggle.yaml"} <= {path.name for path in CONFIGS.iterdir()}
