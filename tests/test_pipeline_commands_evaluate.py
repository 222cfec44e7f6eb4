"""`evaluate`, from the command line to its files: of labelled images, and of a finished run."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pictures
import pyarrow as pa
import pytest
import runs
from sklearn import metrics as sk

pytest.importorskip("matplotlib", reason="needs the evaluate extra")

from models.evaluation.label_errors import LabelErrors
from models.heads.output_spec import ClassOutput
from models.heads.registry import load_head
from pipeline.cli import Call, parse
from pipeline.commands.evaluate import EvaluateOptions
from pipeline.errors import UsageError
from pipeline.report import evaluation_files
from pipeline.report.decimals import minus
from pipeline.report.evaluated_rows import Rows
from pipeline.report.evaluation_files import Pictures
from pipeline.run.soft_labels import read_source
from transforms.formats.cache.feature_cache import FeatureCache
from transforms.formats.records import Limits
from transforms.formats.results import read_results
from transforms.storage.store import InputFault

FILES = {
    "command.json", "confusion.svg", "coverage.svg", "hardest.png", "label_errors.csv", "label_errors.png",
    "metrics.json", "mistakes.png", "reliability.svg", "evaluation.html", "roc.svg",
}  # fmt: skip


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> runs.Bench:
    place = tmp_path_factory.mktemp("bench")
    return runs.Bench(place, runs.make_head(place / "head"))


@pytest.fixture(scope="module")
def source(bench: runs.Bench) -> Path:
    """60 faces of three classes, one of them twice; two files that are not images."""
    files = runs.faces(60)
    files["sad/copy.png"] = files["happy/00000.png"]
    files["sad/text.png"] = b"no image"
    files["happy/empty.png"] = b""
    return pictures.write_tar(bench.path / "test.tar", files)


def test_flags_about_classes_are_refused_for_a_head_of_numbers(
    bench: runs.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ClassOutput, "kind", "number")
    given = ("--input", str(bench.path), "--head", str(bench.head))
    ended = evaluate(bench, "numbers", *given, "--positive", "happy")
    assert (ended.status, ended.line) == (
        2,
        "--positive is for heads of classes, but this head gives a number; drop it",
    )


def evaluate(bench: runs.Bench, output: str, *more: str) -> runs.Ended:
    place = bench.path / output
    flags = ["--output", str(place), "--set", *bench.settings, *more]
    return runs.run("evaluate", "--runner=DirectRunner", *flags, output=place)


def of_input(bench: runs.Bench, source: Path, output: str, *more: str) -> runs.Ended:
    cache = ("--cache", str(bench.path / "cache"))
    return evaluate(bench, output, "--input", str(source), "--head", str(bench.head), *cache, *more)


def metrics_of(ended: runs.Ended) -> dict:
    return json.loads((ended.output / "metrics.json").read_text(encoding="utf-8"))


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def judged(bench: runs.Bench, source: Path) -> runs.Ended:
    return of_input(bench, source, "judged").done()


@pytest.fixture(scope="module")
def labelled(bench: runs.Bench, source: Path) -> runs.Ended:
    return bench.label(source, "labelled", "--cache", str(bench.path / "cache"), "write.no_face_label=sad").done()


def test_the_folder_holds_figures_plots_sheets_and_the_page(judged: runs.Ended) -> None:
    assert {path.name for path in judged.output.iterdir()} == FILES
    about = metrics_of(judged)["evaluated"]
    assert about["counts"] == {
        "images": 63, "duplicate": 0, "excluded": 0, "without_label": 0, "left_out": 0, "no_face": 0, "rejected": 2,
        "evaluated": 61,
    }  # fmt: skip
    assert about["head"]["classes"] == list(runs.CLASSES)
    page = (judged.output / "evaluation.html").read_text(encoding="utf-8")
    assert page.count('<img src="data:image/svg') == 4  # plots
    assert page.count('<img src="data:image/webp') > 40  # pictures by themselves
    assert "2 images with a true label got none: 0 without a face, 2 rejected." in page


def test_the_figures_are_those_of_features_and_head(bench: runs.Bench, judged: runs.Ended) -> None:
    """Worked out again by another way: the cache in a notebook, the head, and scikit-learn."""
    cache = FeatureCache.open(bench.path / "cache")
    p = load_head(bench.head).probabilities(cache.features)
    name = {str(i): str(i).split("/")[-2] for i in cache.face_ids}
    y = np.asarray([runs.CLASSES.index(name[str(i)]) for i in cache.face_ids])
    p, y = np.concatenate([p, p[[str(i).endswith("happy/00000.png") for i in cache.face_ids]]]), np.append(y, 2)
    found = metrics_of(judged)["metrics"]
    assert found["rows"] == len(y) == 61
    assert found["confusion"] == sk.confusion_matrix(y, p.argmax(1)).tolist()
    assert found["accuracy"]["value"] == pytest.approx(sk.accuracy_score(y, p.argmax(1)))
    assert found["auc_macro"] == pytest.approx(sk.roc_auc_score(y, p, multi_class="ovr"), abs=1e-4)
    assert found["accuracy_of_all"] == pytest.approx((p.argmax(1) == y).sum() / 63)


def test_the_closing_words(judged: runs.Ended) -> None:
    found = metrics_of(judged)["metrics"]
    for words in (
        f"accuracy {found['accuracy']['value']:.4f} (95 % interval ",
        f"macro F1 {found['macro_f1']['value']:.4f}",
        f"calibration error {found['expected_calibration_error']:.4f}",
        f"always {found['majority_class']!r}: {found['majority_baseline']:.4f}",
        f"page: {judged.output / 'evaluation.html'}",
    ):
        assert words in judged.out


def test_again_other_blocks_and_a_cold_cache_give_the_same_bytes(
    bench: runs.Bench, source: Path, judged: runs.Ended
) -> None:
    more = ("--cache", str(bench.path / "cold"), "--set", "read.block_images=16", "features.batch_size=8")
    again = of_input(bench, source, "again", *more).done()
    assert files_of(again.output) == files_of(judged.output)
    over = of_input(bench, source, "again").done()
    assert files_of(over.output) == files_of(judged.output)
    assert not of_input(bench, source, "quiet", "--quiet").done().out


def test_a_finished_run_is_judged_alike(bench: runs.Bench, judged: runs.Ended, labelled: runs.Ended) -> None:
    ended = evaluate(bench, "of_run", "--predictions", str(labelled.output)).done()
    assert metrics_of(ended)["metrics"] == metrics_of(judged)["metrics"]
    assert metrics_of(ended)["label_errors"] == metrics_of(judged)["label_errors"]
    assert metrics_of(ended)["evaluated"]["run_fingerprint"] == labelled.record["run_fingerprint"]
    alike = FILES - {"command.json", "metrics.json", "evaluation.html"}
    found, expected = files_of(ended.output), files_of(judged.output)
    assert {name: found[name] for name in alike} == {name: expected[name] for name in alike}


def test_images_that_the_head_was_trained_on_are_counted_and_warned_of(bench: runs.Bench, source: Path) -> None:
    learned = pictures.write_tar(bench.path / "learned.tar", dict(list(runs.faces(60).items())[:20]))
    flags = ("--output", str(bench.path / "trained"), "--kind", "ridge", "--set", *bench.settings)
    cache = ("--cache", str(bench.path / "cache"))
    runs.run("train-head", "--input", str(learned), *cache, *flags, output=bench.path / "trained").done()
    given = ("--input", str(source), "--head", str(bench.path / "trained"), *cache)
    ended = evaluate(bench, "cheated", *given).done()
    warning = "WARNING: the head was trained on 21 of these images"  # one of them is there twice
    assert warning in ended.out
    assert warning in (ended.output / "evaluation.html").read_text()
    assert metrics_of(ended)["evaluated"]["counts"]["trained_on"] == 21
    fair = evaluate(bench, "fair", *given, "--exclude-copies-of", str(learned)).done()
    assert "WARNING" not in fair.out
    assert metrics_of(fair)["evaluated"]["counts"]["evaluated"] == 40


def test_another_question_is_not_written_over_without_a_word(bench: runs.Bench, source: Path) -> None:
    of_input(bench, source, "asked").done()
    before = files_of(bench.path / "asked")
    refused = of_input(bench, source, "asked", "--positive", "happy")
    assert refused.status == 2
    assert "options.positive" in refused.line
    assert files_of(bench.path / "asked") == before
    of_input(bench, source, "asked", "--positive", "happy", "--overwrite").done()
    assert files_of(bench.path / "asked") != before


def test_pictures_are_found_where_they_lie_now_or_are_left_out(
    bench: runs.Bench, source: Path, labelled: runs.Ended, judged: runs.Ended
) -> None:
    place = bench.path / "moved" / "test.tar"
    place.parent.mkdir()
    source.rename(place)
    try:
        predictions = ("--predictions", str(labelled.output))
        without = evaluate(bench, "without", *predictions).done()
        assert not {"mistakes.png", "hardest.png", "label_errors.png"} & set(files_of(without.output))
        assert "--images says where they are" in without.out
        assert "The most confident mistakes" not in (without.output / "evaluation.html").read_text()
        found = evaluate(bench, "without", *predictions, "--images", str(place)).done()
        assert files_of(found.output)["mistakes.png"] == files_of(judged.output)["mistakes.png"]
        again = evaluate(bench, "without", *predictions).done()  # sheets of the time before do not stay
        assert "mistakes.png" not in files_of(again.output)
        refused = evaluate(bench, "refused", *predictions, "--images", str(bench.path / "nowhere"))
        assert refused.status == 2
        assert refused.line.startswith("--images ")

        copy = bench.path / "far_away"  # on storage that this machine cannot read
        shutil.copytree(labelled.output, copy, ignore=shutil.ignore_patterns("cache"))
        record = json.loads((copy / "run.json").read_text(encoding="utf-8"))
        (copy / "run.json").write_text(json.dumps({**record, "inputs": ["strange://bucket/photos"]}), encoding="utf-8")
        far = evaluate(bench, "far", "--predictions", str(copy)).done()
        assert metrics_of(far)["metrics"] == metrics_of(without)["metrics"]
        assert "strange:// is not a known kind of storage (known: " in far.out
        refused = evaluate(bench, "refused", "--predictions", str(copy), "--images", "strange://bucket/photos")
        assert refused.status == 3
        assert "strange://bucket/photos/** cannot be listed: strange:// is not a known kind of storage" in refused.line
    finally:
        place.rename(source)


def test_excluded_images_do_not_count_whatever_their_name(
    bench: runs.Bench, source: Path, labelled: runs.Ended
) -> None:
    files = runs.faces(10)
    other = pictures.write_folder(bench.path / "other", {f"no_label_{i}.png": d for i, d in enumerate(files.values())})
    for output, given in (
        ("ex_input", ("--input", str(source), "--head", str(bench.head), "--cache", str(bench.path / "cache"))),
        ("ex_run", ("--predictions", str(labelled.output))),
    ):
        ended = evaluate(bench, output, *given, "--exclude-copies-of", str(other)).done()
        assert "excluded: 10 images, 10 of them distinct" in ended.err
        about = metrics_of(ended)["evaluated"]
        assert (about["counts"]["excluded"], about["counts"]["evaluated"]) == (11, 50)  # with the copy
        assert about["excluded"] == [str(other)]
        assert "11 images left out, as their bytes stand in --exclude-copies-of." in ended.out


def test_labels_of_other_names(bench: runs.Bench, source: Path, judged: runs.Ended) -> None:
    files = {name.replace("happy/", "smile/"): data for name, data in runs.faces(30).items()}
    files |= {f"odd/{i}.png": data for i, data in enumerate(runs.faces(5, first=500).values())}
    other = pictures.write_tar(bench.path / "names.tar", files)
    refused = of_input(bench, other, "names")
    assert refused.status == 2
    assert "odd, smile are no classes of the head, which knows happy, neutral, sad" in refused.line
    ended = of_input(bench, other, "names", "--rename-classes", "smile=happy", "odd=").done()
    about = metrics_of(ended)["evaluated"]
    assert about["question"]["rename_classes"] == {"smile": "happy", "odd": None}
    assert (about["counts"]["left_out"], about["counts"]["evaluated"]) == (5, 30)
    with open(ended.output / "label_errors.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["class"] for row in rows if row["stated_label"] == "smile"} <= {"happy"}
    assert [float(row["margin"]) for row in rows] == sorted(float(row["margin"]) for row in rows)
    assert len(rows) == metrics_of(ended)["label_errors"]["suspected"]


@pytest.mark.parametrize("exact", [False, True])
def test_what_a_spreadsheet_would_run_is_quoted_unless_asked_otherwise(exact: bool) -> None:
    ids = ["=1+1.png", "-1.png", "@sum", "\t=2", "a=1.png"]
    texts = [pa.chunked_array([pa.array(values)]) for values in (ids, ["0" * 64] * 5, ["+x"] * 5)]
    rows = Rows(("+x", "y"), *texts, np.zeros((5, 4), np.int32), np.full((5, 2), 0.5), np.zeros(5, int), {})
    halves = np.full(5, 0.5)
    suspects = LabelErrors(np.arange(5), np.ones(5, int), halves, halves, np.ones(2), np.zeros((2, 2), int))
    table = evaluation_files._suspects_csv(rows, suspects, exact=exact).decode()
    found = list(csv.reader(io.StringIO(table)))[1:]
    quote = "" if exact else "'"
    assert [row[0] for row in found] == [*(quote + name for name in ids[:4]), "a=1.png"]
    assert {tuple(row[1:4]) for row in found} == {(f"{quote}+x", f"{quote}+x", "y")}
    assert {row[4] for row in found} == {"0.500000"}


def test_a_picture_that_fails_midway_leaves_those_before_it_and_is_named() -> None:
    texts = [pa.chunked_array([pa.array(values)]) for values in (["a.png", "b.png"], ["0" * 64, "1" * 64], ["x", "y"])]
    rows = Rows(("x", "y"), *texts, np.zeros((2, 4), np.int32), np.full((2, 2), 0.5), np.zeros(2, int), {})

    def lines() -> Iterator[bytes]:
        raise InputFault(None, "a.png cannot be read: Input/output error")
        yield b""

    limits = Limits(10**6, 10**6)
    found = evaluation_files._tiles(rows, [0, 1], Pictures(lines(), needed=False), limits)
    assert found == ({0: None, 1: None}, "a.png cannot be read: Input/output error")
    with pytest.raises(InputFault, match=r"a\.png cannot be read"):
        evaluation_files._tiles(rows, [0, 1], Pictures(lines(), needed=True), limits)


def test_a_binary_question(bench: runs.Bench, source: Path) -> None:
    positive = {"happy/": "positive/", "neutral/": "negative/", "sad/": "negative/"}
    files = {}
    for name, data in runs.faces(40).items():
        folder = name[: name.index("/") + 1]
        files[name.replace(folder, positive[folder])] = data
    other = pictures.write_tar(bench.path / "smiles.tar", files)
    flags = ("--positive", "happy", "--positive-labels", "positive")
    found = metrics_of(of_input(bench, other, "smiles", *flags).done())
    assert found["evaluated"]["question"] == {
        "classes": ["not happy", "happy"], "positive": ["happy"], "positive_labels": ["positive"],
    }  # fmt: skip
    assert found["metrics"]["by_class"]["happy"]["support"] == 14
    page = (bench.path / "smiles" / "evaluation.html").read_text(encoding="utf-8")
    assert "p_happy, or 1 less that, whichever is larger" in page

    run = bench.label(other, "smiles_run").done()
    p = np.asarray([row["p_happy"] for row in runs.predictions(run.output)])
    truth = [row["image_id"].split("/")[-2] == "positive" for row in runs.predictions(run.output)]
    assert found["metrics"]["by_class"]["happy"]["auc"] == pytest.approx(sk.roc_auc_score(truth, p))
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(((p > 0.5) == truth).mean())

    refused = evaluate(bench, "smiles_of_run", "--predictions", str(run.output), *flags)
    assert refused.status == 2
    assert "evaluate the images with --input" in refused.line


def test_votes_as_truth(bench: runs.Bench, source: Path, judged: runs.Ended, labelled: runs.Ended) -> None:
    """A table that votes for the folder of each image gives the metrics of the folders; ties are reported."""
    with tarfile.open(source) as archive:
        ids = [member.name for member in archive]
    classes = ("happy", "neutral", "sad", "NF")
    lines = [",".join(("image", *classes))]
    lines += [",".join((name, *(str(6 * name.startswith(f"{known}/") + 2) for known in classes))) for name in ids]
    table = bench.path / "votes.csv"
    table.write_text("\n".join(lines), encoding="utf-8")
    flags = ("--soft-labels", str(table), "--rename-classes", "NF=")
    found = metrics_of(of_input(bench, source, "voted", *flags).done())
    assert found["metrics"] == metrics_of(judged)["metrics"]
    assert found["evaluated"]["truth"] == {"soft_labels": str(table), "images": 63, "without_a_leader": 0}

    for number, votes in ((1, "3,3,1,0"), (2, "0,0,0,4"), (3, "0,0,0,0")):
        lines[number] = f"{ids[number - 1]},{votes}"
    table.write_text("\n".join(lines), encoding="utf-8")
    of_run = evaluate(bench, "voted_run", "--predictions", str(labelled.output), *flags).done()
    counts = metrics_of(of_run)["evaluated"]["counts"]
    assert (counts["images"], counts["left_out"], counts["without_label"]) == (63, 1, 2)
    assert metrics_of(of_run)["evaluated"]["truth"]["without_a_leader"] == 1
    page = (of_run.output / "evaluation.html").read_text(encoding="utf-8")
    assert "which has those of 62 images; in 1 no single class leads" in page

    itself = evaluate(bench, "agreed", "--predictions", str(labelled.output), "--soft-labels", str(labelled.output))
    assert metrics_of(itself.done())["metrics"]["accuracy"]["value"] == 1  # a run agrees with itself
    degree = metrics_of(itself)["degree"]
    assert degree["calibration_error"]["value"] == pytest.approx(0, abs=1e-6)
    assert degree["correlation"]["value"] == pytest.approx(1)


def test_votes_judge_the_degree(bench: runs.Bench, labelled: runs.Ended) -> None:
    """Confidence against the share of the votes for the label; excluded votes are taken off the shares."""
    rows = {row["image_id"]: row for row in runs.predictions(labelled.output)}
    draw = np.random.default_rng(0)
    votes = {name: draw.permutation([7.0, 2.0, 1.0]) for name in rows}
    lines = [f"{name},{','.join(map(str, some))},2" for name, some in votes.items()]
    (bench.path / "degrees.csv").write_text("\n".join(["image,happy,neutral,sad,NF", *lines]), encoding="utf-8")
    given = ("--predictions", str(labelled.output), "--soft-labels", str(bench.path / "degrees.csv"))
    ended = evaluate(bench, "degrees", *given, "--rename-classes", "NF=").done()
    found = metrics_of(ended)["degree"]
    label = [row["label_index"] for row in rows.values()]
    share = np.asarray([some[at] / 10 for some, at in zip(votes.values(), label, strict=True)])
    sure = np.asarray([row["confidence"] for row in rows.values()])
    assert (found["rows"], found["mean_share"]) == (len(rows), pytest.approx(share.mean()))
    assert found["correlation"]["value"] == pytest.approx(np.corrcoef(sure, share)[0, 1])
    happy = [some[0] / 10 for some in votes.values()]
    p = [row["p_happy"] for row in rows.values()]
    assert found["by_class"]["happy"]["correlation"] == pytest.approx(np.corrcoef(p, happy)[0, 1])
    value = f"{found['calibration_error']['value']:.4f}"
    assert f"confidence as a share of the votes: calibration error {value}" in ended.out
    page = (ended.output / "evaluation.html").read_text(encoding="utf-8").replace("<bdi>", "")
    assert f"<dd>{value}" in page
    of_sad = minus(f"{found['by_class']['sad']['correlation']:.3f}")
    assert f'<td class="n">{of_sad}</td>' in page

    smiles = evaluate(bench, "degree_of_smiles", *given, "--positive", "happy").done()
    smiling = metrics_of(smiles)["degree"]["by_class"]["happy"]
    assert smiling["mean_share"] == pytest.approx(np.mean([some[0] / 12 for some in votes.values()]))
    assert "degree" not in metrics_of(evaluate(bench, "no_votes", *given[:2]).done())


def test_a_run_votes_with_the_face_that_is_judged_and_knows_images_without_one(labelled: runs.Ended) -> None:
    results = read_results(str(labelled.output), runs.CLASSES)
    found = read_source(str(labelled.output))
    assert sorted(found.shares) == sorted(results.ids.to_pylist())  # or another image's end of the name would do
    silent = [name for name, row in found.shares.items() if not row.any()]
    assert len(silent) == 2
    assert np.allclose(np.stack([found.shares[name] for name in results.ids.to_pylist()]), results.probabilities)


def test_votes_that_cannot_be_meant_are_refused_before_any_image_is_read(bench: runs.Bench, source: Path) -> None:
    (bench.path / "v.csv").write_text("id,happy,sad,NF\nx.png,1,0,0\n", encoding="utf-8")
    votes = ("--soft-labels", str(bench.path / "v.csv"))
    for flags, said in (
        (("--rename-classes", "nf="), "nf is no class of --soft-labels; they know NF, happy, sad"),
        ((), "--soft-labels knows none of the images, whose ids are like"),
    ):
        ended = of_input(bench, source, "unmeant", *votes, *flags)
        assert (ended.status, said in ended.line) == (2, True)
        assert (bench.path / "unmeant").exists() == (not flags)
    nowhere = evaluate(bench, "unmeant", "--input", str(source), "--soft-labels", str(bench.path / "absent"))
    assert (nowhere.status, "neither a CSV file nor the folder" in nowhere.line) == (2, True)


def test_what_is_cached_needs_no_network_engine(bench: runs.Bench, source: Path, judged: runs.Ended) -> None:
    script = """
import sys

from pipeline.cli import main
status = main(sys.argv[1:])
heavy = [name for name in ("tensorflow", "keras", "sklearn", "matplotlib.pyplot") if name in sys.modules]
sys.exit(status or (9 if heavy else 0))
"""
    given = ["--input", str(source), "--head", str(bench.head), "--cache", str(bench.path / "cache")]
    output = bench.path / "light"
    flags = ["--output", str(output), "--set", *bench.settings]
    process = runs.start("evaluate", "--runner=DirectRunner", *given, *flags, script=script)
    ended = runs.finish(process, output)
    assert ended.status == 0, ended.err
    assert files_of(output) == files_of(judged.output)


def test_an_interrupted_evaluation_goes_on(
    bench: runs.Bench, source: Path, judged: runs.Ended, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.actions import evaluate as module
    from pipeline.errors import StoppedError

    def full(*_: object) -> None:
        raise StoppedError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(module, "write_evaluation", full)
        assert of_input(bench, source, "stopped").status == 3
    assert not (bench.path / "stopped" / "evaluation.html").exists()
    with monkeypatch.context() as patched:
        patched.setattr("pipeline.run.drive.run_graph", lambda *_, **__: pytest.fail("labelled twice"))
        ended = of_input(bench, source, "stopped").done()
    assert files_of(ended.output) == files_of(judged.output)


def test_the_page_goes_first_and_comes_last(
    bench: runs.Bench, source: Path, judged: runs.Ended, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.report import evaluation_files

    shutil.copytree(judged.output, bench.path / "last")
    plain, written = evaluation_files.publish, []

    def publish(path: str, write) -> None:
        written.append(Path(path).name)
        assert not (bench.path / "last" / "evaluation.html").exists()
        plain(path, write)

    monkeypatch.setattr(evaluation_files, "publish", publish)
    of_input(bench, source, "last").done()
    assert written[-1] == "evaluation.html"
    assert set(written) == FILES - {"command.json"}


# --- what is refused


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "evaluate needs --output"),
        (["--output", "o"], "evaluate needs exactly one of --input, labelled images, and --predictions"),
        (["--output", "o", "--input", "a", "--predictions", "b"], "exactly one of"),
        (["--output", "o", "--predictions", "b", "--cache", "c"], "--cache goes with --input"),
        (["--output", "o", "--input", "a", "--images", "c"], "--images goes with --predictions"),
        (["--output", "o", "--input", "a", "--seed", "-1"], "not a whole number"),
    ],
)
def test_wrong_flags_are_refused(arguments: list[str], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(["evaluate", *arguments])
    assert words in str(caught.value)


def test_all_flags() -> None:
    flags = [
        "--rename-classes",
        "a=b",
        "c=",
        "--exclude-copies-of",
        "x",
        "y",
        "--seed",
        "3",
        "--head",
        "h",
        "--positive",
        "p",
    ]
    parsed = parse(["evaluate", "--input", "in", "--output", "o", *flags])
    assert isinstance(parsed, Call)
    assert isinstance(parsed.options, EvaluateOptions)
    assert parsed.options.rename_classes == ("a=b", "c=")
    assert parsed.options.exclude_copies_of == ("x", "y")
    assert (parsed.options.seed, parsed.context.settings.head.path) == (3, "h")


def test_without_matplotlib_one_line_says_what_to_install(
    bench: runs.Bench, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else plain(name))
    refused = of_input(bench, source, "plain")
    assert refused.status == 2
    assert "pip install 'facelabel-pipeline[evaluate]'" in refused.line
    assert not refused.output.exists()


def test_folders_that_are_no_finished_run_are_refused(bench: runs.Bench, labelled: runs.Ended) -> None:
    copy = bench.path / "copy"
    shutil.copytree(labelled.output, copy, ignore=shutil.ignore_patterns("cache"))

    def refusal() -> str:
        refused = evaluate(bench, "no_run", "--predictions", str(copy))
        assert refused.status == 2
        return refused.line

    part = next((copy / "predictions").glob("*.parquet"))
    data = part.read_bytes()
    part.write_bytes(data[:-30] + bytes([data[-30] ^ 1]) + data[-29:])  # in the footer, which nothing of Parquet checks
    assert "missing or changed; label again" in refusal()
    part.unlink()
    assert "missing or changed; label again" in refusal()
    (copy / "run.json").write_text('{"counts": {}}')
    assert "not written by label" in refusal()
    (copy / "run.json").unlink()
    assert "has no run.json" in refusal()
    shutil.rmtree(copy)
    assert "no such folder" in refusal()
    assert not (bench.path / "no_run").exists()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"a.png": 1, "b.png": 2}, "no image has a label; labels come from class folders"),
        ({"happy/a.png": 1, "happy/b.png": 2}, "are of the class 'happy'; at least two classes are needed"),
    ],
)
def test_inputs_that_cannot_be_judged_are_refused(bench: runs.Bench, tmp_path: Path, files, words: str) -> None:
    images = {name: pictures.png(runs.pattern(number, 24)) for name, number in files.items()}
    refused = of_input(bench, pictures.write_folder(tmp_path / "in", images), "cannot")
    assert refused.status == 2
    assert words in refused.line


def test_a_head_for_other_features_is_refused_before_any_work(bench: runs.Bench, source: Path) -> None:
    refused = of_input(bench, source, "other_head", "--set", "features.pooling=multi")
    assert refused.status == 2
    assert "pooling: head avg, here multi" in refused.line
    assert not refused.output.exists()


def test_nothing_at_exclude_is_named(bench: runs.Bench, source: Path) -> None:
    refused = of_input(bench, source, "no_exclude", "--exclude-copies-of", str(bench.path / "nowhere"))
    assert refused.status == 2
    assert refused.line.startswith("--exclude-copies-of ")


def test_a_working_folder_of_another_head_is_no_obstacle(bench: runs.Bench, source: Path, tmp_path: Path) -> None:
    other = runs.make_head(tmp_path / "other", classes=("happy", "odd", "sad"))
    cache = ("--cache", str(bench.path / "cache"), "--input", str(source))
    refused = evaluate(bench, "two_heads", *cache, "--head", str(other))
    assert refused.status == 2
    assert "neutral is no class of the head" in refused.line
    evaluate(bench, "two_heads", *cache, "--head", str(bench.head)).done()
    assert not (bench.path / "two_heads" / "work").exists()
