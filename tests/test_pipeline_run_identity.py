"""Every setting enters the fingerprints that it says it enters, and no other: through the code that makes the keys."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2.data
import pytest

from models.detectors import haar
from models.detectors.cascade.weights import WEIGHTS as CASCADE_WEIGHTS
from models.detectors.haar import CASCADE
from models.detectors.one_shot.detector import SHIPPED
from models.heads.registry import load_head
from models.runtimes import device
from pipeline.run import identity as module
from pipeline.run.identity import identity_of
from pipeline.run.prepare import chosen_head, chosen_heads
from pipeline.settings.describe import SettingInfo, known_settings
from pipeline.settings.load import load_settings
from pipeline.settings.section import Enters
from transforms.formats.canonical import fingerprint_of

STOCK = cv2.data.haarcascades + CASCADE
SAME = os.path.join(cv2.data.haarcascades, ".", CASCADE)  # the same file by another path

CHANGED = {
    "read.block_images": "7", "read.block_bytes": "1000", "read.max_image_bytes": "9", "read.max_pixels": "9",
    "read.threads": "5", "read.exif": "true",
    "read.labels": str(Path(__file__).with_name("labels.csv")), "read.label_column": "class",
    "faces.detector": "none", "faces.margin": "0.1", "faces.max_faces": "1",
    "faces.min_label_px": "7",
    "faces.one_shot.model": str(SHIPPED), "faces.one_shot.min_face_fraction": "0.2",
    "faces.one_shot.score_threshold": "0.77", "faces.one_shot.nms_threshold": "0.2",
    "faces.cascade.model": str(CASCADE_WEIGHTS), "faces.cascade.detect_size": "320",
    "faces.cascade.min_face_fraction": "0.2", "faces.cascade.min_face_px": "20", "faces.cascade.scale_step": "1.5",
    "faces.cascade.stride": "8", "faces.cascade.averaging": "sum", "faces.cascade.nms_threshold": "0.2",
    "faces.haar.model": STOCK, "faces.haar.detect_size": "320", "faces.haar.min_face_fraction": "0.2",
    "faces.haar.scale_factor": "1.2", "faces.haar.min_neighbors": "3",
    "faces.yunet.model": SAME, "faces.yunet.detect_size": "320", "faces.yunet.score_threshold": "0.5",
    "faces.yunet.nms_threshold": "0.5",
    "features.backbone": "vgg16", "features.weights": "bundled", "features.pooling": "flatten",
    "features.input_size": "96", "features.batch_size": "8", "features.precision": "bfloat16", "features.seed": "1",
    "features.runtime": "jax", "features.flip_average": "false", "features.flip_cut": "0",
    "features.preprocess": "symmetric",
    "head.path": "bundled/ferplus", "head.more": "[bundled/ferplus]", "head.kind": "ridge",
    "head.imbalance": "inverse_sqrt", "head.soft_share": "0.5", "head.strength": "0.5",
    "write.rows_per_file": "10", "write.no_face_label": "neutral", "write.face_policy": "first",
    "write.label_values": "name", "write.submission_head": "fer2013", "write.id_column": "Id",
    "write.label_column": "class",
    "write.drop_folder": "true", "write.drop_extension": "true", "write.keep_parts": "true", "write.report": "false",
    "train.backbone": "vgg16", "train.input_size": "64",
    "train.widths": "[8]", "train.convs": "1", "train.start": "bundled", "train.epochs": "1", "train.batch_size": "4",
    "train.optimiser": "adam",
    "train.learning_rate": "1", "train.schedule": "plateau", "train.warmup_epochs": "0", "train.plateau_factor": "0.5",
    "train.plateau_patience": "1", "train.momentum": "0", "train.weight_decay": "0", "train.ema_decay": "0",
    "train.clip_norm": "1", "train.stop_patience": "1", "train.keep": "best", "train.label_smoothing": "0",
    "train.loss": "focal", "mlp.loss": "squared",
    "train.imbalance": "inverse_sqrt", "train.soft_weight": "0.5", "train.reject": "[NF]", "train.mixup": "0.2",
    "train.dropout": "0.1", "train.top_dropout": "0", "train.crop": "0", "train.progressive_sizes": "[24, 40]",
    "train.flip": "false", "train.thirtyfold": "true",
    "train.shift": "0", "train.rotation": "0", "train.scale": "0", "train.shrink": "0",
    "train.contrast": "0",
    "train.brightness": "0", "train.blur": "0", "train.zoom_out": "1", "train.compress": "1", "train.erase": "0",
    "train.frozen": "[block1]", "train.rates": "[block1=0.1]", "train.seed": "1", "train.precision": "float32",
    "mlp.layers": "[8]",
    "mlp.standardise": "false", "mlp.dropout": "0", "mlp.epochs": "1", "mlp.batch_size": "4", "mlp.optimiser": "sgd",
    "mlp.learning_rate": "1", "mlp.schedule": "plateau", "mlp.warmup_epochs": "1", "mlp.plateau_factor": "0.1",
    "mlp.plateau_patience": "1", "mlp.momentum": "0", "mlp.weight_decay": "1", "mlp.ema_decay": "0.5",
    "mlp.clip_norm": "1", "mlp.stop_patience": "1", "mlp.keep": "last", "mlp.label_smoothing": "0.1",
    "mlp.mixup": "0.2", "mlp.seed": "1",
    "features.accelerator": "type:nvidia-tesla-t4;count:1;install-nvidia-driver", "features.min_ram": "16GB",
    "beam.flags": "[--runner=DirectRunner]",
    "live.smoothing": "0", "live.track_overlap": "0.5", "live.track_frames": "3", "live.budget_ms": "10",
}  # fmt: skip
BASE = ("features.weights=random", "features.flip_average=true")
TABLE = f"read.labels={Path(__file__).with_name('labels.csv')}"
ON = {  # settings that count only beside another: a detector's where it is chosen, a column where there is a table
    "cascade": ("faces.detector=cascade",),
    "haar": ("faces.detector=haar",),
    "label_column": (TABLE,),
    "yunet": ("faces.detector=yunet", f"faces.yunet.model={STOCK}"),  # no model is needed to describe it
}
FINGERPRINTS = ("feature_space", "cache_key", "run")
CHANGES = {
    Enters.FEATURE_SPACE: {"feature_space", "cache_key", "run"},
    Enters.CACHE_KEY: {"cache_key", "run"},
    Enters.RUN: {"run"},
    Enters.NOTHING: set(),
}


@pytest.fixture(autouse=True)
def _default_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")


def digests_of(texts: Iterable[str]) -> dict[str, str]:
    settings = load_settings((), tuple(texts))
    _, head = chosen_heads(settings)
    made = identity_of(settings, head)
    return {name: fingerprint_of(getattr(made, name)) for name in FINGERPRINTS}


def changed_by(info: SettingInfo) -> set[str]:
    """Returns the fingerprints that another value of the setting changes."""
    before = [*BASE, *ON.get(info.name.split(".")[1], ())]
    after = [*before, f"{info.name}={CHANGED[info.name]}"]
    assert load_settings((), before) != load_settings((), after)
    old, new = digests_of(before), digests_of(after)
    return {name for name in FINGERPRINTS if old[name] != new[name]}


def strays() -> list[str]:
    """Returns the settings that enter other fingerprints than they say."""
    return [info.name for info in known_settings() if changed_by(info) != CHANGES[info.enters]]


def test_every_setting_enters_the_fingerprints_that_it_says_it_enters() -> None:
    assert {info.name for info in known_settings()} == CHANGED.keys()
    assert strays() == []


@pytest.mark.parametrize("lost", ["read.max_pixels", "faces.margin", "features.pooling", "write.rows_per_file"])
def test_a_setting_that_does_not_reach_its_fingerprint_is_found(monkeypatch: pytest.MonkeyPatch, lost: str) -> None:
    reported = tuple(info for info in known_settings() if info.name != lost)
    monkeypatch.setattr(module, "known_settings", lambda: reported)
    assert strays() == [lost]


def test_a_detectors_setting_enters_even_if_the_detector_forgets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(haar, "describe", lambda options: {"revision": 1})
    assert strays() == []


def test_a_setting_that_is_marked_wrongly_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {"features.pooling": Enters.NOTHING, "write.rows_per_file": Enters.CACHE_KEY, "read.threads": Enters.RUN}
    reported = tuple(replace(info, enters=wrong.get(info.name, info.enters)) for info in known_settings())
    monkeypatch.setattr(f"{__name__}.known_settings", lambda: reported)
    assert set(strays()) == set(wrong)


@pytest.mark.parametrize(
    "kind, name", [(Enters.FEATURE_SPACE, "feature_space"), (Enters.CACHE_KEY, "cache_key"), (Enters.RUN, "run")]
)
def test_a_new_setting_needs_no_line_in_the_code_of_fingerprints(
    monkeypatch: pytest.MonkeyPatch, kind: Enters, name: str
) -> None:
    entering = module._entering

    def with_another(settings: Any, asked: Enters) -> dict[str, dict[str, Any]]:
        tree = entering(settings, asked)
        for section in ("features", "read", "faces", "write"):
            if asked is kind and section in tree:
                tree[section]["planted"] = planted
        return tree

    monkeypatch.setattr(module, "_entering", with_another)
    planted = 1
    before = digests_of(BASE)
    planted = 2
    after = digests_of(BASE)
    assert before[name] != after[name]


def test_fingerprints_of_the_defaults_are_golden() -> None:
    """Changing these makes every cache, every head and every unfinished run useless: only do it on purpose."""
    settings = load_settings((), ("faces.detector=none",))
    made = identity_of(settings, None)
    assert fingerprint_of(made.feature_space) == load_head(chosen_head(settings)[0]).feature_space
    assert fingerprint_of(made.feature_space) == "192c712d6a5988f0af02fab6c1a740dbed8e6d290114d9a3bcdf22d9c5ebe882"
    assert fingerprint_of(made.cache_key) == "cb0d94c486c710daf5ecc8af53a1869f4c5262a086862760af3cacaa0801a9dc"
    assert fingerprint_of(made.run) == "7e4e1ae3241ea7a204fb8f56d0936e2c941b282c44ab3fd1b181a8647abf6b68"


def test_a_path_does_not_enter_but_what_lies_there_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = {"x": "1"}
    monkeypatch.setattr(module, "check_weights_file", lambda *_: None)
    monkeypatch.setattr(device, "weights_digest", lambda chosen: digest["x"])
    one, other = (digests_of([*BASE, f"features.weights={tmp_path / name}.npz"]) for name in "ab")
    assert one == other
    digest["x"] = "2"
    assert digests_of([*BASE, f"features.weights={tmp_path}/a.npz"])["feature_space"] != one["feature_space"]


def test_naming_the_backbones_own_size_is_no_change() -> None:
    assert digests_of([*BASE, "features.input_size=48"]) == digests_of(BASE)


@pytest.mark.parametrize("whole, fraction", [("0", "0.0"), ("1", "1.0")])
def test_a_whole_number_and_its_float_are_one_value(whole: str, fraction: str) -> None:
    one, other = (digests_of([*BASE, f"faces.margin={text}"]) for text in (whole, fraction))
    assert one == other
