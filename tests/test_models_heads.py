"""Heads: what they compute, what they refuse, and that the same row always gets the same bytes."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.heads.keras import KerasHead
from models.heads.linear import LinearHead
from models.heads.mlp import MlpHead
from models.heads.output_spec import most_likely
from models.heads.outputs import ROWS_A_CALL, HeadError, HeadMismatch, softmax
from models.heads.registry import BUNDLED_HEADS, check, load_head

FINGERPRINT = "0123456789abcdef" * 4
SEVEN = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")


def linear_head(width=480, classes=SEVEN, seed=0, **more):
    rng = np.random.default_rng(seed)
    return LinearHead(
        classes,
        coef=rng.normal(size=(len(classes), width)).astype(np.float32) / 10,
        intercept=rng.normal(size=len(classes)),
        mean=rng.normal(size=width),
        scale=rng.uniform(0.5, 2, size=width),
        **more,
    )


def test_the_intensity_has_a_temperature_of_its_own() -> None:
    plain, head = linear_head(temperature=2.0), linear_head(temperature=2.0, intensity_temperature=5.0)
    features = np.random.default_rng(1).normal(size=(9, 480))
    stored = head.output.stored(head.answers(features))
    wanted = softmax(head.logits(features) / 5)[np.arange(9), stored["label_index"]]
    assert stored["intensity"] == pytest.approx(wanted, abs=1e-3)
    without = plain.output.stored(plain.answers(features))
    assert "intensity" not in without and np.array_equal(without["p"], stored["p"])
    assert head.digest != plain.digest
    assert plain.digest == linear_head(temperature=2.0, intensity_temperature=0.0).digest


def write_linear(folder, head, **about):
    """Writes what `pipeline.run.fitting.save_head` writes, spelled out: the format is a contract."""
    folder.mkdir(exist_ok=True)
    out = io.BytesIO()
    np.savez(out, coef=head.coef, intercept=head.intercept, mean=head.mean, scale=head.scale)
    (folder / "head.npz").write_bytes(out.getvalue())
    reported = {
        "format_version": 2,
        "kind": "linear",
        "classes": list(head.classes),
        "feature_space": FINGERPRINT,
        "features": {"backbone": "face_vgg", "input": {"height": 48}},
        "temperature": head.temperature,
        "split": {},
        "metrics": {"accuracy": 0.6},
        "sha256": hashlib.sha256(out.getvalue()).hexdigest(),
    }
    (folder / "head.json").write_text(json.dumps({k: v for k, v in (reported | about).items() if v is not None}))
    return folder


def test_a_head_of_the_format_before_says_how_to_convert_it(tmp_path):
    folder = write_linear(tmp_path / "head", linear_head(), format_version=1, feature_space=None)
    about = json.loads((folder / "head.json").read_text())
    (folder / "head.json").write_text(json.dumps({**about, "features_fingerprint": FINGERPRINT}))
    with pytest.raises(HeadError, match="rename features_fingerprint to feature_space in it, and set format_version"):
        load_head(folder)
    (folder / "head.json").write_text(json.dumps({**about, "feature_space": FINGERPRINT, "format_version": 2}))
    assert load_head(folder).feature_space == FINGERPRINT


def rows_of(count, width=480, seed=1):
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float16)


def test_probabilities_worked_out_by_hand():
    head = LinearHead(
        ("no", "yes"),
        coef=np.array([[0, 0], [2, -1]], dtype=np.float32),
        intercept=np.array([0.0, 0.5]),
        mean=np.array([1.0, 2.0]),
        scale=np.array([2.0, 4.0]),
        temperature=2.0,
    )
    features = np.array([[1, 2], [3, 6]], dtype=np.float16)  # standardised: 0, 0 and 1, 1
    logits = np.array([0.5, 2 - 1 + 0.5]) / 2
    yes = 1 / (1 + np.exp(-logits))
    assert head.probabilities(features).tolist() == np.round(np.stack([1 - yes, yes], axis=1), 6).tolist()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 700), st.lists(st.integers(0, 700), max_size=6), st.sampled_from([(5, 2), (480, 7), (33, 13)]))
def test_the_bytes_of_a_row_do_not_depend_on_the_rows_beside_it(count, cuts, shape):
    width, classes = shape
    head = linear_head(width, tuple(f"c{i:02}" for i in range(classes)))
    features = rows_of(count, width)
    pieces = np.split(features, sorted(c for c in cuts if c <= count))
    split = np.concatenate([head.logits(piece) for piece in pieces])  # before rounding: the stronger promise
    assert split.tobytes() == head.logits(features).tobytes()
    assert np.concatenate([head.probabilities(p) for p in pieces]).tobytes() == head.probabilities(features).tobytes()


def test_every_product_has_one_shape(monkeypatch):
    head = linear_head(8, ("a", "b"))
    shapes = []

    class Watched(np.ndarray):
        def __rmatmul__(self, rows):
            shapes.append(rows.shape)
            return rows @ np.asarray(self)

        __array_priority__ = 1000
        __array_ufunc__ = None

    object.__setattr__(head, "_weights", head._weights.view(Watched))
    for count in (1, 255, 256, 257, 600):
        head.probabilities(rows_of(count, 8))
    assert set(shapes) == {(ROWS_A_CALL, 8)}


def test_probabilities_are_float64_rounded_to_six_places():
    found = linear_head().probabilities(rows_of(100))
    assert found.dtype == np.float64
    assert np.array_equal(found, np.round(found, 6))
    assert np.abs(found.sum(axis=1) - 1).max() < 7e-6


def test_of_equal_probabilities_the_first_in_the_alphabet_wins():
    assert most_likely(np.array([[0.4, 0.4, 0.2], [0.1, 0.45, 0.45]])).tolist() == [0, 1]


def test_rounding_comes_before_the_largest_is_taken():
    head = LinearHead(
        ("a", "b"), np.zeros((2, 1), np.float32), np.array([0.0, 1e-9]), mean=np.zeros(1), scale=np.ones(1)
    )
    assert most_likely(head.probabilities(np.zeros((1, 1), np.float16))).tolist() == [0]  # b is ahead by noise alone


def test_no_rows_give_no_rows():
    assert linear_head().probabilities(rows_of(0)).shape == (0, 7)


@pytest.mark.parametrize(
    ("features", "said"),
    [
        (np.zeros((2, 479), np.float16), r"\(rows, 480\), not \(2, 479\)"),
        (np.zeros(480, np.float16), "not"),
        (np.vstack([rows_of(300), np.full((1, 480), np.nan, np.float16)]), "row 300 are not finite"),
        (np.vstack([rows_of(1), np.full((1, 480), np.inf, np.float16)]), "row 1 are not finite"),
    ],
)
def test_features_that_cannot_be_classified_are_refused(features, said):
    with pytest.raises(HeadError, match=said):
        linear_head().probabilities(features)


def test_a_row_costs_little():
    head, features = linear_head(), rows_of(ROWS_A_CALL * 160)
    best = 1.0
    for _ in range(5):
        start = time.process_time()
        head.probabilities(features)
        best = min(best, (time.process_time() - start) / len(features))
    assert best < 10e-6  # 0.8 µs on an idle core; the margin is for busy machines


def test_a_head_in_a_folder_comes_back_whole(tmp_path):
    head = linear_head(temperature=1.5)
    loaded = load_head(write_linear(tmp_path / "head", head))
    assert loaded.classes == SEVEN
    assert loaded.feature_space == FINGERPRINT
    assert loaded.features == {"backbone": "face_vgg", "input": {"height": 48}}
    assert loaded.probabilities(rows_of(10)).tobytes() == head.probabilities(rows_of(10)).tobytes()
    loaded.prepare(480)
    with pytest.raises(HeadError, match="width 480, not 512"):
        loaded.prepare(512)


def test_a_linear_head_loads_neither_keras_nor_sklearn(tmp_path):
    folder = write_linear(tmp_path / "head", linear_head(8))
    code = (
        "import sys, numpy as np\nfrom models.heads.registry import load_head\n"
        f"load_head({str(folder)!r}).probabilities(np.zeros((3, 8), np.float16))\n"
        "print([m for m in ('keras', 'tensorflow', 'sklearn', 'scipy', 'cv2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_one_flipped_byte_is_damage(tmp_path):
    path = write_linear(tmp_path / "head", linear_head()) / "head.npz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(HeadError, match=r"head\.npz is damaged: its SHA-256"):
        load_head(path.parent)


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"format_version": 3}, "format 3, this program reads 2"),
        ({"classes": None}, "lacks classes"),
        ({"feature_space": None}, "lacks feature_space"),
        ({"kind": "forest"}, "the kind in head.json must be linear, mlp, number or keras, not 'forest'"),
        ({"classes": list(SEVEN[::-1])}, "alphabetical"),
        ({"classes": list(SEVEN[:6])}, r"coef must be finite floats of shape \(6, 480\)"),
        ({"classes": ["a"] * 7}, "different names"),
        ({"classes": [["a"], 1]}, "different names"),
        ({"temperature": 0}, "temperature must be above 0, not 0.0"),
        ({"temperature": "warm"}, "damaged"),
        ({"features": [1]}, "must be a JSON object"),
        ({"sha256": None}, "damaged"),
    ],
)
def test_a_head_that_contradicts_itself_is_refused(about, said, tmp_path):
    folder = write_linear(tmp_path / "head", linear_head(), **about)
    with pytest.raises(HeadError, match=said) as caught:
        load_head(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff"])
def test_a_damaged_head_json_is_named(text, tmp_path):
    folder = write_linear(tmp_path / "head", linear_head(8))
    (folder / "head.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(HeadError, match=r"head\.json is damaged"):
        load_head(folder)


@pytest.mark.parametrize("missing", ["head.json", "head.npz"])
def test_a_missing_file_is_named_with_the_cure(missing, tmp_path):
    folder = write_linear(tmp_path / "head", linear_head(8))
    (folder / missing).unlink()
    with pytest.raises(HeadError, match=rf"no head: .*{missing} does not exist; give a folder that train-head wrote"):
        load_head(folder)


def test_a_pickle_inside_is_not_run(tmp_path):
    head = linear_head(8, ("a", "b"))
    folder = write_linear(tmp_path / "head", head)
    np.savez(folder / "head.npz", coef=np.array([{}], dtype=object), intercept=0, mean=0, scale=0)
    about = json.loads((folder / "head.json").read_text())
    about["sha256"] = hashlib.sha256((folder / "head.npz").read_bytes()).hexdigest()
    (folder / "head.json").write_text(json.dumps(about))
    with pytest.raises(HeadError, match="allow_pickle"):
        load_head(folder)


# dense layers


def mlp_head(layers=(16, 8), width=480, classes=SEVEN, seed=0, reject=(), **more):
    rng = np.random.default_rng(seed)
    sizes = (width, *layers, len(classes) + len(reject))
    return MlpHead(
        classes,
        tuple(rng.normal(size=shape).astype(np.float32) / 5 for shape in itertools.pairwise(sizes)),
        tuple(rng.normal(size=size).astype(np.float32) for size in sizes[1:]),
        mean=rng.normal(size=width),
        scale=rng.uniform(0.5, 2, size=width),
        reject=reject,
        **more,
    )


def write_mlp(folder, head, *, arrays=None, **about):
    """Writes what `save_head` writes of dense layers, spelled out: the format is a contract."""
    folder.mkdir(exist_ok=True)
    out = io.BytesIO()
    stored = {"mean": head.mean, "scale": head.scale}
    for i, (kernel, bias) in enumerate(zip(head.kernels, head.biases, strict=True)):
        stored |= {f"kernel{i}": kernel, f"bias{i}": bias}
    np.savez(out, **{name: value for name, value in (stored | (arrays or {})).items() if value is not None})
    (folder / "head.npz").write_bytes(out.getvalue())
    reported = {
        "format_version": 2,
        "kind": "mlp",
        "classes": list(head.classes),
        "reject": list(head.reject),
        "feature_space": FINGERPRINT,
        "temperature": head.temperature,
        "sha256": hashlib.sha256(out.getvalue()).hexdigest(),
    }
    (folder / "head.json").write_text(json.dumps(reported | about))
    return folder


def test_dense_layers_worked_out_by_hand():
    head = MlpHead(
        ("no", "yes"),
        (np.array([[1, -1], [0, 1]], np.float32), np.array([[0, 2], [0, 3]], np.float32)),
        (np.array([0, 0.5], np.float32), np.array([0, -1], np.float32)),
        mean=np.array([1.0, 2.0]),
        scale=np.array([2.0, 4.0]),
        temperature=2.0,
    )
    features = np.array([[3, 6], [1, -14]], dtype=np.float16)  # standardised: (1, 1) and (0, -4)
    # hidden: relu(1, 0.5), relu(0, -3.5); outputs of yes: 2 + 1.5 - 1, and -1
    yes = 1 / (1 + np.exp(-np.array([2.5, -1.0]) / 2))
    assert head.probabilities(features).tolist() == np.round(np.stack([1 - yes, yes], axis=1), 6).tolist()
    assert head.parameters == 4 + 2 + 4 + 2


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 600),
    st.lists(st.integers(0, 600), max_size=5),
    st.sampled_from([((256,), 480, 7), ((33, 17), 40, 3), ((), 9, 2), ((256, 128), 100, 8)]),
)
def test_the_bytes_of_dense_layers_do_not_depend_on_the_rows_beside(count, cuts, shape):
    layers, width, classes = shape
    head = mlp_head(layers, width, tuple(f"c{i:02}" for i in range(classes)))
    features = rows_of(count, width)
    pieces = np.split(features, sorted(c for c in cuts if c <= count))
    split = np.concatenate([head.logits(piece) for piece in pieces])
    assert split.tobytes() == head.logits(features).tobytes()


def test_dense_layers_in_a_folder_come_back_whole(tmp_path):
    head = mlp_head(reject=("NF",), temperature=0.7)
    loaded = load_head(write_mlp(tmp_path / "head", head))
    assert (loaded.classes, loaded.reject, loaded.feature_space) == (SEVEN, ("NF",), FINGERPRINT)
    assert [kernel.shape for kernel in loaded.kernels] == [(480, 16), (16, 8), (8, 8)]
    assert loaded.probabilities(rows_of(10)).tobytes() == head.probabilities(rows_of(10)).tobytes()
    loaded.prepare(480)
    with pytest.raises(HeadError, match="width 480, not 512"):
        loaded.prepare(512)
    with pytest.raises(HeadError, match=r"mlp head takes features of shape \(rows, 480\)"):
        loaded.probabilities(rows_of(2, 479))
    with pytest.raises(HeadError, match="row 1 are not finite"):
        loaded.probabilities(np.vstack([rows_of(1), np.full((1, 480), np.nan, np.float16)]))


def test_dense_layers_load_neither_keras_nor_sklearn(tmp_path):
    folder = write_mlp(tmp_path / "head", mlp_head(width=8))
    code = (
        "import sys, numpy as np\nfrom models.heads.registry import load_head\n"
        f"load_head({str(folder)!r}).answers(np.zeros((3, 8), np.float16))\n"
        "print([m for m in ('keras', 'tensorflow', 'sklearn', 'scipy', 'cv2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_one_flipped_byte_of_dense_layers_is_damage(tmp_path):
    path = write_mlp(tmp_path / "head", mlp_head()) / "head.npz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(HeadError, match=r"head\.npz is damaged: its SHA-256"):
        load_head(path.parent)


@pytest.mark.parametrize(
    ("arrays", "about", "said"),
    [
        ({"kernel1": None}, {}, "damaged, or not a head of kind mlp"),
        ({"bias2": None}, {}, "damaged, or not a head of kind mlp"),
        ({"mean": None}, {}, "damaged, or not a head of kind mlp"),
        ({"kernel1": np.zeros((15, 8), np.float32)}, {}, r"kernel1 must be finite floats of shape \(16, 8\)"),
        ({"kernel0": np.zeros((480, 16), np.int32)}, {}, r"kernel0 must be finite floats of .*, not int32"),
        ({"kernel2": np.full((8, 7), np.nan, np.float32)}, {}, "kernel2 must be"),
        ({"bias0": np.zeros(3, np.float32)}, {}, r"bias0 must be finite floats of shape \(16,\)"),
        ({"kernel0": np.float32(1)}, {}, "damaged, or not a head of kind mlp"),
        ({"scale": np.zeros(480)}, {}, "scale must be above 0"),
        ({}, {"classes": list(SEVEN[:6])}, r"kernel2 must be finite floats of shape \(8, 6\)"),
        ({}, {"reject": ["NF"]}, r"kernel2 must be finite floats of shape \(8, 8\)"),
        ({}, {"reject": ["angry"]}, "new, distinct names"),
        ({}, {"reject": [1]}, "new, distinct names"),
        ({}, {"temperature": -1}, "temperature must be above 0, not -1.0"),
        ({}, {"kind": "linear"}, "damaged, or not a head of kind linear"),
    ],
)
def test_dense_layers_that_contradict_themselves_are_refused(arrays, about, said, tmp_path):
    folder = write_mlp(tmp_path / "head", mlp_head(), arrays=arrays, **about)
    with pytest.raises(HeadError, match=said) as caught:
        load_head(folder)
    assert "\n" not in str(caught.value)


def test_the_digest_of_dense_layers_tells_layers_apart():
    one, two = mlp_head((4, 6), 8), mlp_head((6, 4), 8)
    digests = {head.digest for head in (one, two, mlp_head((4, 6), 8, seed=1), mlp_head((4, 6), 8, temperature=2.0))}
    assert len(digests) == 4
    assert mlp_head((4, 6), 8, metrics={"accuracy": 1}).digest == one.digest


# reject classes


def rejecting_head(**more):
    """Logits are the features themselves: a and b, then NF and unknown."""
    return LinearHead(
        ("a", "b"), np.eye(4, dtype=np.float32), np.zeros(4), mean=np.zeros(4), scale=np.ones(4),
        reject=("NF", "unknown"), **more,
    )  # fmt: skip


def test_the_no_label_score_and_what_is_left_worked_out_by_hand():
    features = np.log(np.array([[1, 2, 3, 4], [5, 3, 1, 1]], np.float64)).astype(np.float16)
    found = stored(rejecting_head(), features)
    assert found["p"] == pytest.approx(np.array([[1 / 3, 2 / 3], [5 / 8, 3 / 8]]), abs=1e-3)
    assert found["no_label_score"] == pytest.approx(np.array([0.7, 0.2]), abs=1e-3)
    assert found["no_label_score"].dtype == np.float64
    assert np.array_equal(found["no_label_score"], np.round(found["no_label_score"], 6))
    assert found["p"].tobytes() == rejecting_head().probabilities(features).tobytes()


def stored(head, features):
    """Returns what a part stores of the head's answers, by field."""
    return head.output.stored(head.answers(features))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.floats(-30, 30), min_size=4, max_size=4), min_size=1, max_size=5), st.floats(0.1, 10))
def test_probabilities_sum_to_one_whatever_is_rejected(rows, temperature):
    found = stored(rejecting_head(temperature=temperature), np.asarray(rows, np.float16))
    assert np.abs(found["p"].sum(axis=1) - 1).max() < 2e-6
    assert ((found["no_label_score"] >= 0) & (found["no_label_score"] <= 1)).all()


def test_heads_without_reject_classes_have_no_score(tmp_path):
    assert "no_label_score" not in stored(linear_head(), rows_of(2))
    assert linear_head().reject == ()


def test_digests_of_heads_without_reject_classes_are_what_they_were():
    head = LinearHead(
        ("a", "b"), coef=np.array([[0.5, -1], [0.25, 2]], np.float32), intercept=np.array([0.0, 0.5]),
        mean=np.array([1.0, 2.0]), scale=np.array([2.0, 4.0]), temperature=1.5, feature_space=FINGERPRINT,
    )  # fmt: skip
    assert head.digest == "b19680d96a4df10bd711167b617f28dc2d638b7021bf1b83ae902cc5c5f79b65"


def test_the_digest_tells_which_classes_are_rejected():
    arrays = (np.eye(4, dtype=np.float32), np.zeros(4), np.zeros(4), np.ones(4))
    heads = [LinearHead(("a", "b", "c"), *arrays, reject=(name,)) for name in ("NF", "unknown")]
    assert len({head.digest for head in (*heads, LinearHead(("a", "b", "c", "d"), *arrays))}) == 3


# promise 9


def head_for(fingerprint, features=None):
    return linear_head(8, ("a", "b"), feature_space=fingerprint, features=features or {})


@pytest.mark.parametrize("made_for", [FINGERPRINT, FINGERPRINT[:16]])
def test_a_head_takes_the_features_it_was_made_for(made_for):
    check(head_for(made_for), FINGERPRINT)


@pytest.mark.parametrize("made_for", ["f" * 64, FINGERPRINT[:15], "", FINGERPRINT[:20] + "f" * 44])
def test_a_head_refuses_other_features_naming_both(made_for):
    with pytest.raises(HeadMismatch) as caught:
        check(head_for(made_for), FINGERPRINT)
    assert made_for[:16] in str(caught.value)
    assert FINGERPRINT[:16] in str(caught.value)


def test_a_refusal_says_what_differs_where_both_describe_themselves():
    made_for = {"backbone": "vgg16", "input": {"height": 48}, "weights": "a" * 50 + "b", "pooling": "avg"}
    here = {"backbone": "face_vgg", "input": {"height": 48}, "weights": "a" * 50 + "c", "seed": 3}
    with pytest.raises(HeadMismatch) as caught:
        check(head_for("f" * 64, made_for), FINGERPRINT, here)
    said = str(caught.value)
    assert (
        "backbone: head vgg16, here face_vgg; pooling: head avg, here unset; seed: head unset, here 3; weights" in said
    )
    assert "height" not in said


# digests


@pytest.mark.parametrize(
    "changed",
    [{"temperature": 2.0}, {"feature_space": "f" * 64}, {"seed": 5}, {"classes": (*SEVEN[:6], "wonder")}],
)
def test_the_digest_changes_with_all_that_changes_predictions(changed):
    assert linear_head(**changed).digest != linear_head().digest


def test_the_digest_heeds_no_figures():
    assert linear_head(metrics={"accuracy": 1}, split={"seed": 1}).digest == linear_head().digest
    assert len(linear_head().digest) == 64


# Keras


@pytest.fixture(scope="module")
def keras():
    return pytest.importorskip("keras")


def keras_folder(folder, model, classes, **about):
    folder.mkdir(exist_ok=True)
    model.save(folder / "model.keras")
    reported = {"classes": list(classes), "feature_space": FINGERPRINT, **about}
    (folder / "head.json").write_text(json.dumps(reported))
    return folder


def dense(keras, outputs, activation, width=6):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((width,)), keras.layers.Dense(outputs, activation=activation)])
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel, bias + np.linspace(-0.5, 0.5, outputs)])
    return model, model.layers[-1].get_weights()


@pytest.mark.parametrize("activation", ["softmax", None])
def test_keras_logits_go_through_softmax_and_probabilities_do_not(keras, activation, tmp_path):
    model, (kernel, bias) = dense(keras, 3, activation)
    head = load_head(keras_folder(tmp_path / "head", model, "abc"))
    features = rows_of(300, 6)
    expected = softmax(features.astype(np.float64) @ kernel + bias)
    assert np.abs(head.probabilities(features) - expected).max() < 2e-6
    assert head.probabilities(features[:7]).tobytes() == head.probabilities(features)[:7].tobytes()
    assert head.probabilities(features[250:]).tobytes() == head.probabilities(features)[250:].tobytes()


@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_one_keras_output_is_the_second_class(keras, activation, tmp_path):
    model, (kernel, bias) = dense(keras, 1, activation)
    head = load_head(keras_folder(tmp_path / "head", model, ("no", "yes")))
    features = rows_of(5, 6)
    yes = 1 / (1 + np.exp(-(features.astype(np.float64) @ kernel + bias)))
    assert np.abs(head.probabilities(features) - np.concatenate([1 - yes, yes], axis=1)).max() < 2e-6


def test_keras_columns_are_put_in_alphabetical_order(keras, tmp_path):
    model, (kernel, bias) = dense(keras, 3, "softmax")
    head = load_head(keras_folder(tmp_path / "head", model, ("sad", "angry", "happy")) / "model.keras")
    assert head.classes == ("angry", "happy", "sad")
    features = rows_of(4, 6)
    outputs = softmax(features.astype(np.float64) @ kernel + bias)
    assert np.abs(head.probabilities(features) - outputs[:, [1, 2, 0]]).max() < 2e-6


def test_a_keras_head_is_loaded_when_first_used_and_checked_when_prepared(keras, tmp_path):
    model, _ = dense(keras, 3, "softmax")
    head = load_head(keras_folder(tmp_path / "head", model, "abcd"))
    assert isinstance(head, KerasHead)
    assert head._model is None
    with pytest.raises(HeadError, match=r"3 outputs, but its head\.json lists 4 classes"):
        head.prepare(6)
    with pytest.raises(HeadError, match="width 6, not 9"):
        load_head(keras_folder(tmp_path / "head", model, "abc")).prepare(9)
    with pytest.raises(HeadError, match="width 6, not 9"):
        load_head(tmp_path / "head").probabilities(rows_of(2, 9))


def test_a_keras_digest_is_the_file_s(keras, tmp_path):
    model, _ = dense(keras, 3, "softmax")
    folder = keras_folder(tmp_path / "head", model, "abc")
    first = load_head(folder).digest
    assert load_head(folder / "model.keras").digest == first
    with open(folder / "model.keras", "ab") as out:
        out.write(b"x")
    assert load_head(folder).digest != first
    about = json.loads((folder / "head.json").read_text()) | {"sha256": "0" * 64}
    (folder / "head.json").write_text(json.dumps(about))
    with pytest.raises(HeadError, match="is damaged"):
        load_head(folder)


def test_a_file_that_is_no_keras_model_is_one_line(keras, tmp_path):
    (tmp_path / "model.keras").write_bytes(b"nothing")
    (tmp_path / "head.json").write_text(json.dumps({"classes": ["a", "b"], "feature_space": FINGERPRINT}))
    with pytest.raises(HeadError, match=r"model\.keras is not a Keras model") as caught:
        load_head(tmp_path).prepare(6)
    assert "\n" not in str(caught.value)


def test_code_inside_a_keras_model_is_not_run(keras, tmp_path):
    layers = [keras.Input((6,)), keras.layers.Lambda(lambda x: x[:, :3])]
    folder = keras_folder(tmp_path / "head", keras.Sequential(layers), "abc")
    with pytest.raises(HeadError, match="its own code"):
        load_head(folder).prepare(6)


def test_a_folder_with_two_models_needs_a_name(keras, tmp_path):
    model, _ = dense(keras, 3, "softmax")
    folder = keras_folder(tmp_path / "head", model, "abc")
    model.save(folder / "other.keras")
    with pytest.raises(HeadError, match=r"holds 2 \.keras files"):
        load_head(folder)
    about = json.loads((folder / "head.json").read_text()) | {"file": "other.keras"}
    (folder / "head.json").write_text(json.dumps(about))
    load_head(folder).prepare(6)


@pytest.mark.parametrize("folder", sorted(set(BUNDLED_HEADS.values())), ids=lambda folder: folder.name)
def test_a_call_of_a_bundled_head_is_too_small_for_blas_to_share_among_threads(folder):
    columns, width = load_head(folder).coef.shape
    assert ROWS_A_CALL * width * columns < 800_000  # at 1.2 million its threads were seen to spin, at 0.86 not
