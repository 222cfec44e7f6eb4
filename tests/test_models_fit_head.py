"""Fitting a linear head: the split, the choice, the temperature, the metrics, and the folder that comes out."""

from __future__ import annotations

import json

import numpy as np
import pytest

from models.heads.outputs import softmax
from models.heads.registry import load_head
from models.training import fit_head as fitting
from models.training.fit_head import Fitted, fit_linear_head, fit_ridge_head
from models.training.head_data import FitError, Rows, Votes
from models.training.head_metrics import expected_calibration_error, fit_temperature, metrics_of
from pipeline.run.fitting import save_head

FINGERPRINT = "0123456789abcdef" * 4
NAMES = ("happy", "angry", "sad")


def clouds(count=300, width=12, spread=1.0, names=NAMES, seed=0):
    """Returns features (n, d) float16 and labels: a cloud a class."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(len(names), width))
    y = np.arange(count) % len(names)
    return (centres[y] + spread * rng.normal(size=(count, width))).astype(np.float16), [names[i] for i in y]


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    return fit_linear_head(*clouds(spread=2.0), cs=(0.001, 0.1, 10))


def test_clouds_are_told_apart():
    found = fit_linear_head(*clouds(spread=0.2))
    assert found.head.classes == ("angry", "happy", "sad")
    assert found.metrics["accuracy"] == 1.0
    features, labels = clouds(30, spread=0.2, seed=7)
    said = found.head.probabilities(features).argmax(axis=1)
    assert [found.head.classes[i] for i in said] == labels


def test_two_classes_work_like_any_number():
    found = fit_linear_head(*clouds(names=("no", "yes"), spread=0.2))
    assert found.head.coef.shape == (2, 12)
    features, labels = clouds(20, names=("no", "yes"), spread=0.2, seed=3)
    assert [found.head.classes[i] for i in found.head.probabilities(features).argmax(axis=1)] == labels


def test_the_same_input_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        save_head(tmp_path / name, fit_linear_head(*clouds()), FINGERPRINT, {})
    for file in ("head.npz", "head.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_another_seed_splits_otherwise(tmp_path):
    one, two = (fit_linear_head(*clouds(spread=2.0), seed=seed) for seed in (0, 1))
    assert one.head.coef.tobytes() != two.head.coef.tobytes()


def test_the_split_is_stratified(fitted):
    assert fitted.split == {
        "kind": "holdout", "holdout": 0.2, "seed": 0, "groups": "equal features", "train": 240, "held_out": 60,
        "c": fitted.chosen["c"],
    }  # fmt: skip
    assert [fitted.metrics["by_class"][name]["rows"] for name in ("angry", "happy", "sad")] == [20, 20, 20]


def pure_noise(copies):
    """Labels that features cannot tell: only a copy on the other side of the split can be remembered."""
    rng = np.random.default_rng(5)
    features = rng.normal(size=(60, 200)).astype(np.float16)
    labels = [NAMES[i] for i in rng.integers(0, 2, 60)]
    return np.tile(features, (copies, 1)), labels * copies


def test_copies_of_an_image_never_stand_on_both_sides():
    features, labels = pure_noise(copies=5)
    assert fit_linear_head(features, labels, cs=(10,)).metrics["accuracy"] < 0.9
    groups = np.arange(60).tolist() * 5
    assert fit_linear_head(features, labels, cs=(10,), groups=groups).metrics["accuracy"] < 0.9
    alone = list(range(300))  # the same rows let loose: copies leak, and all is remembered
    assert fit_linear_head(features, labels, cs=(10,), groups=alone).metrics["accuracy"] == 1.0


@pytest.mark.parametrize("kind", [str, bytes, np.ndarray])
def test_groups_may_be_names_or_digests(kind):
    features, labels = pure_noise(copies=3)
    keys = [f"{i:064}" for i in range(60)] * 3
    groups = {
        str: keys,
        bytes: [key.encode() for key in keys],
        np.ndarray: np.frombuffer("".join(keys).encode(), np.uint8).reshape(-1, 64),
    }[kind]
    same = fit_linear_head(features, labels, cs=(10,), groups=list(range(60)) * 3)
    assert fit_linear_head(features, labels, cs=(10,), groups=groups).head.coef.tobytes() == same.head.coef.tobytes()


def test_a_given_validation_set_is_taken_as_it_is():
    features, labels = clouds()
    found = fit_linear_head(features, labels, validation=clouds(50, seed=4))
    assert (found.split["kind"], found.split["train"], found.split["held_out"]) == ("given", 300, 50)
    assert found.metrics["rows"] == 50


def test_a_class_that_validation_lacks_has_no_recall():
    features, labels = clouds(names=("a", "b"), seed=4)
    found = fit_linear_head(*clouds(names=("a", "b", "c"), spread=0.1), validation=(features, labels))
    assert found.metrics["by_class"]["c"]["recall"] is None


def test_every_c_is_reported_and_the_best_is_taken():
    rows = []
    found = fit_linear_head(*clouds(spread=2.0), cs=(10, 0.001, 0.1), report=rows.append)
    assert [row["c"] for row in rows] == [0.001, 0.1, 10.0]
    assert tuple(rows) == found.sweep
    best = max(row["accuracy"] for row in rows)
    assert found.chosen["c"] == min(row["c"] for row in rows if row["accuracy"] == best)


def test_of_equally_good_cs_the_smallest_is_taken():
    found = fit_linear_head(*clouds(spread=0.1), cs=(1, 0.1, 10))
    assert {row["accuracy"] for row in found.sweep} == {1.0}
    assert found.chosen == {"c": 0.1}


def test_too_few_steps_are_reported_not_hidden():
    assert not fit_linear_head(*clouds(spread=2.0), cs=(10,), max_iter=2).sweep[0]["converged"]


def test_a_feature_that_never_changes_harms_nothing():
    features, labels = clouds(spread=0.2)
    features[:, 3] = 1.5
    features[:, 4] = 0
    found = fit_linear_head(features, labels)
    assert found.metrics["accuracy"] == 1.0
    assert found.head.scale[[3, 4]].tolist() == [1.0, 1.0]


def test_what_is_measured_is_what_is_saved(fitted, tmp_path):
    features, labels = clouds(spread=2.0)
    found = fit_linear_head(features, labels, validation=(features[:60], labels[:60]))
    save_head(tmp_path / "head", found, FINGERPRINT, {"backbone": "face_vgg"})
    head = load_head(tmp_path / "head")
    y = np.array([head.classes.index(label) for label in labels[:60]])
    again = metrics_of(head.probabilities(features[:60]), y, head.classes)
    assert again["confusion"] == found.metrics["confusion"]
    assert again["nll"] == pytest.approx(found.metrics["nll"], abs=1e-5)
    assert (head.feature_space, head.features) == (FINGERPRINT, {"backbone": "face_vgg"})


def test_the_folder_holds_two_files_and_a_readable_account(fitted, tmp_path):
    save_head(tmp_path / "deep" / "head", fitted, FINGERPRINT, {"backbone": "face_vgg"})
    assert sorted(p.name for p in (tmp_path / "deep" / "head").iterdir()) == ["head.json", "head.npz"]
    about = json.loads((tmp_path / "deep" / "head" / "head.json").read_text())
    assert about["classes"] == ["angry", "happy", "sad"]
    assert (about["kind"], about["format_version"]) == ("linear", 2)
    assert about["metrics"]["majority_baseline"] == pytest.approx(1 / 3)


def test_saving_replaces_a_head_and_leaves_other_files_alone(fitted, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    save_head(tmp_path, fit_linear_head(*clouds()), FINGERPRINT, {})
    save_head(tmp_path, fitted, FINGERPRINT, {})
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert load_head(tmp_path).temperature == fitted.head.temperature


def test_a_save_that_is_killed_half_way_never_yields_a_mixture(fitted, tmp_path, monkeypatch):
    from models.heads.outputs import HeadError
    from pipeline.run import fitting

    save_head(tmp_path, fit_linear_head(*clouds()), FINGERPRINT, {})
    publish, written = fitting.publish_bytes, []

    def killed_after_one(path, data):
        if written:
            raise KeyboardInterrupt
        written.append(path)
        publish(path, data)

    monkeypatch.setattr(fitting, "publish_bytes", killed_after_one)
    with pytest.raises(KeyboardInterrupt):
        save_head(tmp_path, fitted, FINGERPRINT, {})
    with pytest.raises(HeadError, match="damaged"):
        load_head(tmp_path)


# ridge


def test_ridge_tells_clouds_apart_and_its_probabilities_are_no_worse_than_its_labels():
    found = fit_ridge_head(*clouds(900, spread=1.0))
    assert found.kind == "ridge"
    assert found.chosen == {"alpha": found.split["alpha"]}
    assert found.metrics["accuracy"] > 0.8
    assert found.metrics["ece"] < 0.1
    assert found.metrics["nll"] < found.metrics["nll_uncalibrated"]


@pytest.mark.parametrize("shape", [(40, 6), (12, 30)], ids=["more rows", "more features"])
@pytest.mark.parametrize("alpha", [0.01, 1.0])
def test_ridge_is_the_solution_of_the_normal_equations(shape, alpha):
    count, width = shape
    features, labels = clouds(count, width, spread=1.0)
    held = clouds(9, width, seed=3)
    head = fit_ridge_head(features, labels, validation=held, alphas=(alpha,)).head
    x = (features.astype(np.float64) - head.mean) / head.scale
    y = np.array([[name == label for name in head.classes] for label in labels], np.float64)
    solved = np.linalg.solve(x.T @ x + alpha * count * np.eye(width), x.T @ (y - y.mean(axis=0)))
    assert np.abs(head.coef - solved.T).max() < 1e-4
    assert head.intercept == pytest.approx(y.mean(axis=0))


def test_of_equally_good_alphas_the_largest_is_taken():
    found = fit_ridge_head(*clouds(spread=0.1), alphas=(0.1, 1, 0.01))
    assert [row["alpha"] for row in found.sweep] == [1.0, 0.1, 0.01]
    assert {row["accuracy"] for row in found.sweep} == {1.0}
    assert found.chosen == {"alpha": 1.0}


def test_a_ridge_head_comes_back_whole(tmp_path):
    for name in ("one", "two"):
        save_head(tmp_path / name, fit_ridge_head(*clouds()), FINGERPRINT, {})
    assert (tmp_path / "one" / "head.npz").read_bytes() == (tmp_path / "two" / "head.npz").read_bytes()
    about = json.loads((tmp_path / "one" / "head.json").read_text())
    assert (about["kind"], about["fitted_by"]) == ("linear", "ridge")
    assert load_head(tmp_path / "one").temperature == about["temperature"]


def test_ridge_of_too_many_numbers_names_the_cure(monkeypatch):
    monkeypatch.setattr(fitting, "LARGEST_SQUARE", 8)
    with pytest.raises(FitError, match="decompose a matrix of side 12, its limit is 8; use the kind logistic"):
        fit_ridge_head(*clouds())
    with pytest.raises(FitError, match="alphas must be one or more numbers above 0"):
        fit_ridge_head(*clouds(), alphas=(0,))


# rows of a file, and votes


@pytest.mark.parametrize("fit", [fit_linear_head, fit_ridge_head])
def test_rows_of_a_file_give_the_head_that_rows_in_memory_give(fit, tmp_path):
    features, labels = clouds(spread=2.0)
    order = np.random.default_rng(1).permutation(300)
    stored = np.lib.format.open_memmap(tmp_path / "f.npy", mode="w+", dtype=np.float16, shape=features.shape)
    stored[order] = features
    rows = Rows(np.load(tmp_path / "f.npy", mmap_mode="r"), order)
    assert fit(rows, labels).head.digest == fit(features, labels).head.digest


def as_votes(labels, names=NAMES, reject=()):
    return Votes(np.array([[name == label for name in names] for label in labels], np.float32), names, reject)


def test_unanimous_votes_are_labels():
    data, held = clouds(spread=2.0), clouds(60, spread=2.0, seed=4)
    by_labels = fit_linear_head(*data, validation=held, cs=(0.1,)).head
    by_votes = fit_linear_head(data[0], as_votes(data[1]), validation=(held[0], as_votes(held[1])), cs=(0.1,)).head
    assert by_votes.classes == by_labels.classes
    ours, theirs = (head.logits(held[0]) - head.logits(held[0])[:, :1] for head in (by_votes, by_labels))
    assert np.abs(ours - theirs).max() < 0.02


def doubtful(count=1500, seed=0):
    """One feature; the share of votes for b follows it: what a fit on shares must find again."""
    x = np.random.default_rng(seed).normal(size=(count, 1)).astype(np.float16)
    share = 1 / (1 + np.exp(-2 * x.astype(np.float64) - 0.5))
    return x, Votes(np.concatenate([1 - share, share], axis=1).astype(np.float32), ("a", "b"))


def test_shares_are_fitted_as_shares():
    x, votes = doubtful()
    head = fit_linear_head(x, votes, cs=(1000.0,), validation=doubtful(100, seed=1)).head
    logits = head.logits(x)  # before the temperature
    assert (logits[:, 1] - logits[:, 0]) == pytest.approx(2 * x[:, 0].astype(np.float64) + 0.5, abs=0.05)


@pytest.mark.parametrize("fit", [fit_linear_head, fit_ridge_head])
def test_reject_classes_get_a_score_and_a_protocol(fit, tmp_path):
    features, labels = clouds(600, spread=0.5, names=("happy", "angry", "sad", "NF"))
    votes = as_votes(labels, ("happy", "angry", "sad", "NF"), ("NF",))
    found = fit(features, votes)
    assert (found.head.classes, found.head.reject) == (("angry", "happy", "sad"), ("NF",))
    assert found.metrics["accuracy"] > 0.95
    assert found.metrics["reject"] == {"rows": 30, "auc": pytest.approx(1.0, abs=0.02)}
    assert found.metrics["rows"] == 90
    assert "not a reject class" in found.metrics["counted"]
    assert len(found.metrics["confusion"]) == 3
    save_head(tmp_path, found, FINGERPRINT, {})
    assert load_head(tmp_path).reject == ("NF",)
    assert json.loads((tmp_path / "head.json").read_text())["reject"] == ["NF"]


def test_rows_whose_truth_is_a_reject_class_do_not_count_in_the_accuracy():
    x = np.array([[0], [1], [2], [3]] * 10, np.float16)
    labels = ["a", "b", "NF", "NF"] * 10
    votes = as_votes(labels, ("a", "b", "NF"), ("NF",))
    # of the held-out rows the ordinary ones are all called rightly; the others could only be called wrongly
    found = fit_linear_head(x, votes, validation=(x, votes), cs=(100.0,))
    assert found.metrics["rows"] == 20
    assert found.metrics["accuracy"] == 1.0
    assert {row["accuracy"] for row in found.sweep} == {1.0}


def test_without_a_held_out_row_to_reject_there_is_no_area():
    features, labels = clouds(90, names=("a", "b", "NF"))
    votes = as_votes(labels, ("a", "b", "NF"), ("NF",))
    held = features[:3:2][:1], Votes(votes.shares[:1], votes.classes, votes.reject)
    assert fit_linear_head(features, votes, validation=held).metrics["reject"] == {"rows": 0, "auc": None}


# rare classes


FITS = {"logistic": fit_linear_head, "ridge": fit_ridge_head}
COUNTS = {"often": 800, "rare": 120, "seldom": 80}  # clouds that overlap: who is rare is overlooked


def unequal(seed=0, width=6):
    """Returns features (1000, width) float16 and labels, in a random order."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat(np.arange(3), list(COUNTS.values())))
    centres = np.random.default_rng(99).normal(size=(3, width))
    return (centres[y] + 1.5 * rng.normal(size=(1000, width))).astype(np.float16), [list(COUNTS)[i] for i in y]


def fit_unequal(kind, imbalance, *, votes=False, **more):
    features, labels = unequal()
    held, truth = unequal(seed=1)
    names = tuple(COUNTS)
    answers = [as_votes(said, names) if votes else said for said in (labels, truth)]
    return FITS[kind](features, answers[0], validation=(held, answers[1]), imbalance=imbalance, **more)


def macro_recall(found):
    return np.mean([row["recall"] for row in found.metrics["by_class"].values()])


@pytest.mark.parametrize("votes", [False, True], ids=["labels", "votes"])
@pytest.mark.parametrize("kind", FITS)
def test_rare_classes_are_found_more_often_if_the_fit_is_told_to(kind, votes):
    natural, weighed, adjusted = (
        macro_recall(fit_unequal(kind, way, votes=votes)) for way in ("natural", "inverse_sqrt", "logit_adjustment")
    )
    assert natural + 0.1 < weighed < adjusted - 0.01


@pytest.mark.parametrize("fit", FITS.values())
def test_natural_is_what_is_done_unasked_and_the_folder_says_nothing_of_it(fit, tmp_path):
    for name, more in (("unasked", {}), ("asked", {"imbalance": "natural"})):
        save_head(tmp_path / name, fit(*unequal(), **more), FINGERPRINT, {})
    for file in ("head.npz", "head.json"):
        assert (tmp_path / "asked" / file).read_bytes() == (tmp_path / "unasked" / file).read_bytes()
    assert "recipe" not in json.loads((tmp_path / "asked" / "head.json").read_text())


@pytest.mark.parametrize("way", ["inverse_sqrt", "logit_adjustment"])
@pytest.mark.parametrize("kind", FITS)
def test_a_head_says_what_was_done_for_rare_classes(kind, way, tmp_path):
    found = fit_unequal(kind, way)
    save_head(tmp_path, found, FINGERPRINT, {})
    assert json.loads((tmp_path / "head.json").read_text())["recipe"] == {"imbalance": way}
    assert load_head(tmp_path).digest == load_head(tmp_path).digest != fit_unequal(kind, "natural").head.digest


def of_roots(labels):
    """Returns (n, 1) the weight of each row: 1 / sqrt(frequency of its class), 1 on the mean."""
    weights = np.array([[1 / np.sqrt(labels.count(label) / len(labels))] for label in labels])
    return weights / weights.mean()


def prepared(head, features, labels):
    """Returns the training rows as the head sees them, and ones at their labels."""
    x = (features.astype(np.float64) - head.mean) / head.scale
    return x, np.array([[name == label for name in head.classes] for label in labels], np.float64)


def against_the_first(values):
    return values - values[:1]


@pytest.mark.parametrize("votes", [False, True], ids=["labels", "votes"])
def test_logistic_regression_by_weights_has_no_slope_left_in_the_weighed_loss(votes):
    head = fit_unequal("logistic", "inverse_sqrt", votes=votes, cs=(0.5,)).head
    x, y = prepared(head, *unequal())
    error = of_roots(unequal()[1]) * (softmax(x @ head.coef.T + head.intercept) - y)
    assert np.abs(error.mean(axis=0)).max() < 1e-3
    slopes = (error.T @ x + head.coef / 0.5) / 1000
    assert np.abs(against_the_first(slopes)).max() < 1e-3
    plain = softmax(x @ head.coef.T + head.intercept) - y
    assert np.abs(plain.mean(axis=0)).max() > 0.01  # without the weights it would have one


@pytest.mark.parametrize("votes", [False, True], ids=["labels", "votes"])
def test_logistic_regression_has_no_slope_left_in_the_loss_with_log_frequencies_added(votes):
    head = fit_unequal("logistic", "logit_adjustment", votes=votes, cs=(0.5,)).head
    x, y = prepared(head, *unequal())
    frequencies = np.array([COUNTS[name] / 1000 for name in head.classes])
    error = softmax(x @ head.coef.T + head.intercept + np.log(frequencies)) - y
    assert np.abs(error.mean(axis=0)).max() < 1e-3
    assert np.abs(against_the_first((error.T @ x + head.coef / 0.5) / 1000)).max() < 1e-3
    plain = softmax(x @ head.coef.T + head.intercept) - y
    assert np.abs(plain.mean(axis=0)).max() > 0.01


def test_two_classes_are_adjusted_like_any_number():
    features, labels = unequal()
    labels = ["often" if label == "often" else "rare" for label in labels]
    natural, adjusted = (
        fit_linear_head(features, labels, imbalance=way, cs=(0.5,), validation=(features, labels)).head
        for way in ("natural", "logit_adjustment")
    )
    assert np.array_equal(adjusted.coef, natural.coef)
    assert natural.intercept - adjusted.intercept == pytest.approx(np.log([0.8, 0.2]))


@pytest.mark.parametrize("width", [6, 90], ids=["more rows", "more features"])
def test_ridge_by_weights_is_the_solution_of_the_weighed_normal_equations(width):
    features, labels = (rows[:60] for rows in unequal(width=width))
    held = unequal(seed=1, width=width)
    head = fit_ridge_head(features, labels, validation=held, alphas=(0.1,), imbalance="inverse_sqrt").head
    x, y = prepared(head, features, labels)
    weights = of_roots(labels)
    with_one = np.concatenate([x, np.ones((60, 1))], axis=1)
    penalty = 0.1 * 60 * np.diag([*[1.0] * width, 0.0])
    solved = np.linalg.solve(with_one.T @ (weights * with_one) + penalty, with_one.T @ (weights * y))
    assert np.abs(head.coef - solved[:-1].T).max() < 1e-4
    assert head.intercept == pytest.approx(solved[-1], abs=1e-4)


def test_ridge_is_adjusted_after_the_fit_in_the_unit_of_its_calibrated_logits():
    natural, adjusted = (fit_unequal("ridge", way, alphas=(0.1,)).head for way in ("natural", "logit_adjustment"))
    assert np.array_equal(adjusted.coef, natural.coef)
    frequencies = np.array([COUNTS[name] / 1000 for name in natural.classes])
    taken = (natural.intercept - adjusted.intercept) / natural.temperature
    assert taken == pytest.approx(np.log(frequencies), rel=1e-3)


@pytest.mark.parametrize("kind", FITS)
@pytest.mark.parametrize("way", ["inverse_sqrt", "logit_adjustment"])
def test_strength_is_chosen_by_balanced_accuracy_and_the_temperature_by_rows_as_they_occur(kind, way):
    found = fit_unequal(kind, way)
    best = max(found.sweep, key=lambda row: row["balanced_accuracy"])
    assert found.chosen.items() <= best.items()
    assert best["balanced_accuracy"] == pytest.approx(macro_recall(found))
    assert best["accuracy"] == pytest.approx(found.metrics["accuracy"])
    assert best["accuracy"] < max(row["accuracy"] for row in found.sweep)  # by which another one would have been taken
    logits = found.head.logits(unequal(seed=1)[0])
    truth = np.array([found.head.classes.index(label) for label in unequal(seed=1)[1]])
    losses = [
        -np.log(softmax(logits / (found.head.temperature * factor))[np.arange(1000), truth]).mean()
        for factor in (0.9, 1.0, 1.1)
    ]
    assert losses[1] == min(losses) == pytest.approx(found.metrics["nll"])


def test_shares_count_in_the_frequencies_as_shares():
    x, votes = doubtful()
    natural, adjusted = (
        fit_linear_head(x, votes, cs=(1000.0,), validation=doubtful(100, seed=1), imbalance=way).head
        for way in ("natural", "logit_adjustment")
    )
    taken = natural.intercept - adjusted.intercept
    assert taken == pytest.approx(np.log(votes.shares.mean(axis=0)), abs=1e-5)


@pytest.mark.parametrize("fit", FITS.values())
@pytest.mark.parametrize("way", ["inverse_sqrt", "logit_adjustment"])
def test_a_reject_class_is_a_class_among_the_frequencies(fit, way):
    features, labels = unequal()
    votes = as_votes(labels, tuple(COUNTS), ("seldom",))
    found = fit(features, votes, imbalance=way, validation=(features, votes))
    natural = fit(features, votes, validation=(features, votes))
    assert (found.head.classes, found.head.reject) == (("often", "rare"), ("seldom",))
    mean = {head: head.answers(features)[:, -1].mean() for head in (found.head, natural.head)}
    assert mean[found.head] > mean[natural.head]


# calibration and metrics


def test_the_temperature_undoes_overconfidence():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 4)) * 1.5
    y = np.array([rng.choice(4, p=p) for p in softmax(logits)])
    assert fit_temperature(logits, y) == pytest.approx(1, abs=0.05)
    assert fit_temperature(3 * logits, y) == pytest.approx(3, abs=0.15)


def test_a_separable_part_keeps_the_temperature_in_bounds():
    assert 0.05 <= fit_temperature(np.eye(3) * 500, np.arange(3)) <= 20


def test_calibration_lowers_the_loss_and_both_sides_are_told(fitted):
    assert fitted.metrics["nll"] <= fitted.metrics["nll_uncalibrated"]
    assert "ece_uncalibrated" in fitted.metrics


def test_figures_worked_out_by_hand():
    probabilities = np.array([[0.8, 0.2, 0], [0.6, 0.4, 0], [0.3, 0.7, 0], [0.9, 0.1, 0]])
    found = metrics_of(probabilities, np.array([0, 1, 1, 0]), ("a", "b", "c"))
    assert found["confusion"] == [[2, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert found["accuracy"] == 0.75
    assert found["majority_baseline"] == 0.5
    assert found["macro_f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)  # c does not occur
    assert found["by_class"]["a"] == {"rows": 2, "precision": pytest.approx(2 / 3), "recall": 1.0}
    assert found["by_class"]["c"] == {"rows": 0, "precision": None, "recall": None}
    assert found["nll"] == pytest.approx(-np.log([0.8, 0.4, 0.7, 0.9]).mean())


@pytest.mark.parametrize(
    ("confidences", "right", "error"),
    [
        ([0.8, 0.8], [1, 1], 0.2),
        ([0.75] * 4, [1, 1, 1, 0], 0.0),
        ([0.9, 0.6], [1, 0], (0.1 + 0.6) / 2),
        ([1.0], [1], 0.0),
        ([0.8, 2 / 3], [0, 1], (0.8 + 1 / 3) / 2),  # an edge belongs to the bin below it
    ],
)
def test_calibration_error_worked_out_by_hand(confidences, right, error):
    probabilities = np.array([[c, 1 - c] for c in confidences])
    y = 1 - np.array(right)
    assert expected_calibration_error(probabilities, y) == pytest.approx(error)


# refusals


def broken(**change):
    features, labels = clouds(30)
    return {"features": features, "labels": labels, **change}


def with_value(value):
    features, _ = clouds(30)
    features[17, 2] = value
    return features


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (broken(labels=["a"] * 30), "all 30 labels are 'a'"),
        (broken(labels=["a"] * 29 + ["b"]), "fewer than two different examples of b"),
        (broken(labels=["a"] * 15 + [None] + ["b"] * 13 + [""]), r"2 of 30 labels are missing \(the first in row 15\)"),
        (broken(labels=["a", "b"]), "2 labels for 30 rows"),
        (broken(features=np.zeros((0, 4), np.float16), labels=[]), "no rows"),
        (broken(features=with_value(np.nan)), "row 17 of the features is not finite"),
        (broken(features=with_value(np.inf)), "row 17"),
        (broken(features=np.zeros((30, 4), np.int32)), "must be floats of shape"),
        (broken(features=np.zeros(30, np.float16)), "must be floats of shape"),
        (broken(features=np.ones((30, 4), np.float16)), "fewer than two different examples"),
        (broken(holdout=0.0), "holdout must be between 0 and 1, not 0.0"),
        (broken(holdout=0.999), "cannot be split at holdout 0.999"),
        (broken(holdout=0.01), "cannot be split at holdout 0.01"),
        (broken(imbalance="sqrt"), "imbalance must be one of natural, inverse_sqrt, logit_adjustment, not 'sqrt'"),
        (broken(cs=()), "cs must be one or more numbers above 0"),
        (broken(cs=(0.1, -1)), "cs must be one or more numbers above 0"),
        (broken(max_iter=0), "max_iter must be at least 1, not 0"),
        (broken(groups=[1, 2]), "2 groups for 30 rows"),
        (broken(validation=clouds(9, names=("happy", "angry", "bored"))), "classes that training does not have: bored"),
        (broken(validation=clouds(9, width=5)), "width 5, training has 12"),
        (broken(validation=(np.zeros((0, 12), np.float16), [])), "no rows"),
    ],
)
def test_what_cannot_be_fitted_is_refused_in_one_line(given, said):
    with pytest.raises(FitError, match=said) as caught:
        fit_linear_head(**given)
    assert "\n" not in str(caught.value)
