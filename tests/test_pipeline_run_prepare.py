"""From settings to fingerprints and to what the stages need."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

from models.detectors.options import HaarOptions, OneShotOptions
from models.detectors.registry import DetectorSpec
from models.heads.linear import LinearHead
from models.heads.outputs import Head
from models.heads.registry import check, load_head
from models.runtimes.registry import RUNTIMES
from models.runtimes.runtime import Runtime
from pipeline.errors import UsageError
from pipeline.run.identity import SMALLEST_SIDE_PX, Identity, detector_spec, feature_settings, identity_of
from pipeline.run.prepare import chosen_head, make_job
from pipeline.settings.load import load_settings
from pipeline.settings.schema import Settings
from transforms.formats.canonical import fingerprint_of
from transforms.formats.records import Limits
from transforms.job import Cropping, Labelling, Reading

RANDOM = ("features.weights=random",)


def settings_of(*texts: str) -> Settings:
    return load_settings((), texts)


def identity(*texts: str, head: LinearHead | None = None) -> Identity:
    return identity_of(settings_of(*RANDOM, *texts), head)


def a_head(value: float = 1.0) -> LinearHead:
    return LinearHead(
        classes=("a", "b"),
        coef=np.full((2, 3), value, np.float32),
        intercept=np.zeros(2),
        mean=np.zeros(3),
        scale=np.ones(3),
    )


@pytest.mark.parametrize(
    "texts, size",
    [
        ([], (48, 48)),
        (["features.input_size=32"], (32, 32)),
        (["features.input_size=48x64"], (48, 64)),
        (["features.backbone=vgg16"], (224, 224)),
        (["features.backbone=vgg19"], (224, 224)),
    ],
)
def test_an_open_size_is_the_backbones_own(texts: Sequence[str], size: tuple[int, int]) -> None:
    chosen = feature_settings(settings_of(*texts))
    assert (chosen.height, chosen.width) == size


def test_the_devices_share_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = feature_settings(
        settings_of(
            *("features.weights=mine.npz", "features.pooling=flatten", "features.batch_size=16"),
            *("features.precision=bfloat16", "features.seed=3"),
        )
    )
    assert chosen.weights == str(tmp_path / "mine.npz")
    assert (chosen.pooling, chosen.batch_size, chosen.precision, chosen.seed) == ("flatten", 16, "bfloat16", 3)


def test_another_preprocessing_is_another_space() -> None:
    own = identity()
    assert own.feature_space["preprocess"] == "unit"
    assert identity("features.preprocess=unit") == own, "naming the network's own changes nothing"
    assert identity("features.preprocess=symmetric").feature_space == {**own.feature_space, "preprocess": "symmetric"}
    assert identity("features.preprocess=symmetric").cache_key != own.cache_key
    with pytest.raises(UsageError, match=r"^features\.preprocess=caffe is for colour, but face_vgg takes grey crops$"):
        identity("features.preprocess=caffe")


def test_mirrored_features_are_a_space_of_their_own_and_the_default_of_face_vgg_alone() -> None:
    plain, both = identity("features.flip_average=false"), identity("features.flip_average=true")
    assert not plain.feature_space["flip_average"] and "flip_cut" not in plain.feature_space
    assert both.feature_space == {**plain.feature_space, "flip_average": True, "flip_cut": 0.0625}
    assert identity("features.flip_average=false", "features.flip_cut=0.1") == plain  # nothing there to cut
    assert identity("features.flip_cut=0").feature_space == {**plain.feature_space, "flip_average": True}
    assert identity("features.flip_cut=0.1").feature_space == {**both.feature_space, "flip_cut": 0.1}
    assert both.cache_key["space"] == both.feature_space
    assert identity() == both
    assert feature_settings(settings_of()).flip_average
    others = feature_settings(settings_of("features.backbone=vgg19", "features.flip_average=true"))
    assert (others.flip_average, others.flip_cut) == (True, 0)
    assert not feature_settings(settings_of("features.backbone=vgg19")).flip_average


def test_the_detectors_share_of_the_settings() -> None:
    haar = ("detect_size=320", "min_face_fraction=0.2", "scale_factor=1.3", "min_neighbors=4", "model=mine.xml")
    texts = ("faces.detector=haar", "faces.max_faces=2", *(f"faces.haar.{text}" for text in haar))
    assert detector_spec(settings_of(*texts)) == DetectorSpec("haar", HaarOptions("mine.xml", 320, 0.2, 1.3, 4), 2)
    assert detector_spec(settings_of("faces.haar.min_neighbors=4")) == DetectorSpec("one_shot")
    one_shot = detector_spec(settings_of("faces.one_shot.min_face_fraction=0.1"))
    assert one_shot.options == OneShotOptions(min_face_fraction=0.1)


def test_weights_of_another_network_are_refused_before_anything_else(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", **{"block1_conv1/kernel": np.zeros((3, 3, 3, 8))})
    with pytest.raises(UsageError, match=r"mine\.npz does not hold weights of face_vgg: .*3x3x3x8, not 3x3x1x8"):
        identity_of(settings_of(f"features.weights={tmp_path}/mine.npz"), None)


SPACE, FEATURES, PARTS, RUN = "feature_space", "cache_key", "parts", "run"


@pytest.mark.parametrize(
    "text, changes",
    [
        ("read.block_images=7", set()),
        ("read.block_bytes=1000", set()),
        ("read.threads=9", set()),
        ("features.batch_size=8", set()),
        ("features.input_size=48", set()),
        ("write.keep_parts=true", set()),
        ("faces.yunet.score_threshold=0.5", set()),  # of yunet, which is not chosen
        ("write.rows_per_file=10", {RUN}),
        ("write.label_values=name", {RUN}),
        ("write.no_face_label=sad", {RUN}),
        ("write.drop_folder=true", {RUN}),
        ("faces.min_label_px=40", {PARTS, RUN}),
        ("read.max_pixels=1000", {FEATURES, PARTS, RUN}),
        ("read.max_image_bytes=1000", {FEATURES, PARTS, RUN}),
        ("faces.detector=none", {FEATURES, PARTS, RUN}),
        ("faces.haar.min_neighbors=4", {FEATURES, PARTS, RUN}),
        ("faces.margin=0.3", {FEATURES, PARTS, RUN}),
        ("faces.max_faces=1", {FEATURES, PARTS, RUN}),
        ("features.precision=bfloat16", {FEATURES, PARTS, RUN}),
        ("features.seed=1", {SPACE, FEATURES, PARTS, RUN}),
        ("features.pooling=flatten", {SPACE, FEATURES, PARTS, RUN}),
        ("features.input_size=32", {SPACE, FEATURES, PARTS, RUN}),
        ("features.backbone=vgg16", {SPACE, FEATURES, PARTS, RUN}),
    ],
)
def test_what_a_setting_changes(text: str, changes: set[str]) -> None:
    before, after = (identity("faces.detector=haar", *texts, head=a_head()) for texts in ((), (text,)))
    assert {name for name in (SPACE, FEATURES, PARTS, RUN) if getattr(before, name) != getattr(after, name)} == changes


def test_what_a_detector_does_not_heed_changes_nothing() -> None:
    unheeded = ("faces.margin=0.5", "faces.haar.detect_size=99", "faces.min_label_px=40")
    whole = identity("faces.detector=none", *unheeded, head=a_head())
    assert whole == identity("faces.detector=none", head=a_head())
    assert whole.parts["faces"] == {"min_label_px": 0}


def test_what_is_not_labelled_does_not_heed_how_small_a_face_may_be() -> None:
    assert identity("faces.min_label_px=40") == identity()


@pytest.mark.parametrize("detector, px", [("haar", 40), ("none", 0)])
def test_the_stages_know_how_small_a_face_may_be(tmp_path: Path, detector: str, px: int) -> None:
    settings = settings_of(*RANDOM, f"faces.detector={detector}", "faces.min_label_px=40")
    head = a_head()
    assert labelling_of(settings, "h", head).min_label_px == px


def test_another_head_is_another_run_on_the_same_features() -> None:
    one, other = identity(head=a_head()), identity(head=a_head(2.0))
    assert (one.feature_space, one.cache_key) == (other.feature_space, other.cache_key)
    assert one.parts != other.parts
    assert one.run != other.run
    assert identity(head=a_head()) == one


def test_another_backend_makes_other_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    before = identity()
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert identity().cache_key != before.cache_key
    assert identity().feature_space == before.feature_space


def test_each_runtime_has_a_cache_of_its_own_and_all_share_the_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Runtime, "check_installed", lambda self: None)
    made = [identity_of(settings_of(f"features.runtime={name}"), None) for name in RUNTIMES]
    assert len({fingerprint_of(one.cache_key) for one in made}) == len(RUNTIMES)
    assert len({fingerprint_of(one.feature_space) for one in made}) == 1


@pytest.mark.parametrize("name", ["foo", "TensorFlow", "torch"])
def test_a_backend_that_is_not_a_runtime_is_refused_before_anything_is_read(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", name)
    with pytest.raises(UsageError, match=f"the runtime '{name}' is not one of tensorflow, jax, onnx, openvino; "):
        identity()


def test_weights_are_known_by_their_bytes_not_by_their_place(tmp_path: Path) -> None:
    for name, filters in (("a", 8), ("c", 9)):
        parts = {part: np.zeros(filters) for part in ("gamma", "beta", "mean", "variance")}
        arrays = {"kernel": np.zeros((3, 3, 1, filters)), **parts}
        np.savez(tmp_path / f"{name}.npz", **{f"block1_conv1/{part}": array for part, array in arrays.items()})
    shutil.copy(tmp_path / "a.npz", tmp_path / "b.npz")
    a, b, c = (identity(f"features.weights={tmp_path / name}.npz") for name in "abc")
    assert a == b
    assert a.feature_space != c.feature_space


def test_a_detectors_model_is_known_by_its_bytes_not_by_its_place(tmp_path: Path) -> None:
    import cv2.data

    stock = Path(cv2.data.haarcascades, "haarcascade_frontalface_default.xml")
    shutil.copy(stock, tmp_path / "mine.xml")
    mine = ("faces.detector=haar", f"faces.haar.model={tmp_path / 'mine.xml'}")
    assert identity(*mine) == identity("faces.detector=haar")
    shutil.copy(stock.with_name("haarcascade_frontalface_alt.xml"), tmp_path / "mine.xml")
    assert identity(*mine).cache_key != identity("faces.detector=haar").cache_key


@pytest.mark.parametrize(
    "texts, words",
    [
        (["features.weights=nowhere.npz"], "nowhere.npz; nothing is downloaded"),
        (["features.backbone=vgg16", "features.weights=imagenet"], "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"),
        (["faces.detector=yunet", "faces.yunet.model=nowhere.onnx"], "nowhere.onnx"),
        (["faces.detector=haar", "faces.haar.model=nowhere.xml"], "nowhere.xml"),
        (["features.input_size=15"], "too small for face_vgg; use 16 or more"),
        (
            ["features.backbone=vgg19", "features.weights=random", "features.input_size=64x31"],
            "too small for vgg19; use 32 or more",
        ),
    ],
)
def test_what_is_missing_or_too_small_stops_the_job_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts: Sequence[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(UsageError) as refused:
        identity_of(settings_of(*texts), None)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_imagenet_weights_are_looked_for_where_keras_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    path = tmp_path / "models" / "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5"
    with h5py.File(path, "w"):
        pass
    space = identity_of(settings_of("features.backbone=vgg19"), None).feature_space
    assert space["weights"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_bundled_head_of_another_name_is_refused() -> None:
    with pytest.raises(UsageError, match=r"bundled/fer is not a bundled head; known: bundled, .*bundled/ferplus"):
        chosen_head(settings_of("head.path=bundled/fer"))


def test_a_head_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        chosen_head(settings_of(f"head.path={tmp_path / 'nowhere'}"))


@pytest.mark.parametrize(
    ("name", "classes", "rejects"),
    [("bundled", 7, False), ("bundled/fer2013", 7, False), ("bundled/ferplus", 8, True), ("bundled/smile", 2, True)],
)
def test_the_bundled_heads_are_there_and_fit_the_bundled_network(name: str, classes: int, rejects: bool) -> None:
    settings = settings_of(f"head.path={name}")
    path, head = chosen_head(settings)
    assert os.path.isdir(path)
    assert list(head.classes) == sorted(head.classes)
    assert (len(head.classes), bool(head.reject)) == (classes, rejects)
    space = identity_of(settings, head).feature_space
    check(head, fingerprint_of(space), space)  # raises where head and network do not belong together


def test_a_bundled_head_travels_by_its_name_and_any_other_by_its_path(tmp_path: Path) -> None:
    """Workers may have this program in another place."""
    settings = settings_of(*RANDOM)
    for name, sent in (("bundled", "bundled/fer2013"), ("bundled/ferplus", "bundled/ferplus")):
        path, head = chosen_head(settings_of(f"head.path={name}"))
        labelling = labelling_of(settings, path, head)
        assert labelling.head == sent
        assert load_head(labelling.head).digest == head.digest
        assert labelling.output == head.output
    assert labelling_of(settings, "/my/head", a_head()).head == "/my/head"


def labelling_of(settings: Settings, path: str, head: Head) -> Labelling:
    job = make_job(settings, identity_of(settings, None), output="o", cache="c", head=(path, head))
    assert job.labelling is not None
    return job.labelling


def test_the_job_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = settings_of(
        *RANDOM, "read.threads=3", "read.max_pixels=77", "read.max_image_bytes=88", "faces.margin=0.25"
    )
    who = identity_of(settings, None)
    job = make_job(settings, who, output="out", cache="cache", head=("h", a_head()), heartbeat="beats", layout=(5, 6))
    limits, size = Limits(max_image_bytes=88, max_pixels=77), (job.features.height, job.features.width)
    assert job.reading == Reading(limits, 5, 6)
    assert job.detecting.cropping == Cropping(*size, 1, 0.25, limits, SMALLEST_SIDE_PX)
    assert job.detecting.threads == 3
    assert (job.cache.root, job.writing.parts, job.heartbeat) == (str(tmp_path / "cache"), "out/parts", "beats")
    assert job.labelling is not None
    assert (job.labelling.head, job.labelling.runtime) == ("h", job.features.runtime)
    loaded = {source.name: source.path for source in job.provenance.sources}
    assert loaded == {"weights": "random", "device revision": "", "detector": "one_shot", "head": "h"}
    own = make_job(settings, who, output="out", cache="cache")
    assert own.labelling is None
    assert own.reading == Reading(limits, settings.read.block_images, settings.read.block_bytes)
    assert own.writing == job.writing


def test_a_jobs_fingerprint_follows_the_head_but_not_the_submission(tmp_path: Path) -> None:
    def fingerprints(*texts: str, head: LinearHead | None = None) -> tuple[str, str]:
        settings = settings_of(*RANDOM, *texts)
        job = make_job(settings, identity_of(settings, head), output="o", cache="c")
        return job.cache.key_json, job.writing.run_fingerprint

    plain = fingerprints(head=a_head())
    assert fingerprints("write.label_values=name", head=a_head()) == plain
    other = fingerprints(head=a_head(2.0))
    assert other[0] == plain[0]
    assert other[1] != plain[1]
