"""Several heads in one run: their columns, the submission of one of them, and what reads them afterwards."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pictures
import pyarrow.parquet as pq
import pytest
import runs

from pipeline import api
from transforms.formats.exports.registry import EXPORTS

MORE = ("no", "yes")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> runs.Bench:
    place = tmp_path_factory.mktemp("several")
    runs.make_head(place / "smile", classes=MORE)
    return runs.Bench(place, runs.make_head(place / "head"))


@pytest.fixture(scope="module")
def source(bench: runs.Bench) -> Path:
    return pictures.write_folder(bench.path / "photos", runs.faces(18))


def heads(bench: runs.Bench, *more: str) -> tuple[str, ...]:
    return ("--head", str(bench.head), *more, "--cache", str(bench.path / "cache"))


@pytest.fixture(scope="module")
def alone(bench: runs.Bench, source: Path) -> dict[str, runs.Ended]:
    """One run for each head."""
    given = {"head": str(bench.head), "smile": str(bench.path / "smile")}
    cache = ("--cache", str(bench.path / "cache"))
    return {name: bench.label(source, f"only_{name}", "--head", path, *cache).done() for name, path in given.items()}


@pytest.fixture(scope="module")
def both(bench: runs.Bench, source: Path, alone: dict[str, runs.Ended]) -> runs.Ended:
    return bench.label(source, "both", *heads(bench, str(bench.path / "smile"))).done()


def table(run: runs.Ended) -> pq.ParquetFile:
    return pq.read_table(next((run.output / "predictions").iterdir()))


def test_each_head_says_what_it_says_alone(alone: dict[str, runs.Ended], both: runs.Ended) -> None:
    """The first keeps its columns, those of the second begin with its name; the features come from the cache."""
    found, first, second = table(both), table(alone["head"]), table(alone["smile"])
    own = second.column_names[second.column_names.index("label") :]
    assert found.column_names == [*first.column_names, *(f"smile_{name}" for name in own)]
    assert found.select(first.column_names).equals(first)
    for name in own:
        assert found[f"smile_{name}"].equals(second[name])
    assert both.record["cache"]["computed"] == 0
    assert (both.output / "submission.csv").read_bytes() == (alone["head"].output / "submission.csv").read_bytes()


def test_run_json_and_the_closing_words_name_both(alone: dict[str, runs.Ended], both: runs.Ended) -> None:
    record = both.record
    assert [(head["name"], head["columns_begin_with"], head["classes"]) for head in record["heads"]] == [
        ("head", "", list(runs.CLASSES)),
        ("smile", "smile_", list(MORE)),
    ]
    assert record["head"] == alone["head"].record["head"]
    assert record["labels"] == alone["head"].record["labels"]
    assert record["more_labels"] == {"smile_": alone["smile"].record["labels"]}
    assert any(line.startswith("smile: ") for line in both.out.splitlines())
    assert not {"heads", "more_labels"} & alone["head"].record.keys()


def test_the_submission_follows_the_chosen_head(bench: runs.Bench, source: Path, alone: dict[str, runs.Ended]) -> None:
    given = heads(bench, f"grin={bench.path / 'smile'}")
    ended = bench.label(source, "chosen", *given, "write.submission_head=grin", "write.label_values=name").done()
    by_name = bench.label(source, "named", "--head", str(bench.path / "smile"), "write.label_values=name").done()
    assert (ended.output / "submission.csv").read_bytes() == (by_name.output / "submission.csv").read_bytes()
    assert "0=no 1=yes" in ended.out
    assert "grin_label" in table(ended).column_names


def test_the_same_bytes_whatever_the_way(bench: runs.Bench, source: Path, both: runs.Ended) -> None:
    ways = ("read.block_images=5", "features.batch_size=8", "read.threads=1")
    cold = (*heads(bench, str(bench.path / "smile"))[:-1], str(bench.path / "cold"))
    assert runs.results(bench.label(source, "way", *cold, *ways).done().output) == runs.results(both.output)


def test_a_list_in_the_settings_does_the_same(bench: runs.Bench, source: Path, both: runs.Ended) -> None:
    config = bench.path / "heads.yaml"
    config.write_text(f"head: {{path: {bench.head}, more: [{bench.path / 'smile'}]}}\n")
    arguments = bench.arguments(source, "config", "--cache", str(bench.path / "cache"), "--config", str(config))
    place = arguments.index("--head")
    del arguments[place : place + 2]
    ended = runs.run(*arguments, output=bench.path / "config").done()
    assert runs.results(ended.output) == runs.results(both.output)


def test_the_python_api_takes_several(bench: runs.Bench, source: Path, both: runs.Ended) -> None:
    settings = dict(setting.split("=") for setting in runs.SMALL)
    settings |= {"features.input_size": 16}
    paths = [bench.head, bench.path / "smile"]
    run = api.label(source, bench.path / "api", head=paths, settings=settings, cache=bench.path / "cache")
    assert runs.results(run.path) == runs.results(both.output)


def test_the_python_api_evaluates_the_chosen_head(bench: runs.Bench, both: runs.Ended) -> None:
    pytest.importorskip("matplotlib")
    renamed = {"happy": "yes", "neutral": "no", "sad": "no"}
    found = api.evaluate(api.Run.open(both.output), bench.path / "api_page", head="smile", rename_classes=renamed)
    assert found.metrics["by_class"].keys() == set(MORE)


def test_the_page_of_either_head(bench: runs.Bench, alone: dict[str, runs.Ended], both: runs.Ended) -> None:
    def shown() -> list[tuple[str, int]]:
        found = json.loads((both.output / "report.json").read_text())["labels"]
        return [(row["label"], row["faces"]) for row in found]

    assert shown() == list(alone["head"].record["labels"].items())
    runs.run("report", str(both.output), "--head", "smile", output=both.output).done()
    assert shown() == list(alone["smile"].record["labels"].items())
    refused = runs.run("report", str(both.output), "--head", "nobody", output=both.output)
    assert (refused.status, refused.line) == (2, "--head nobody is not a head of this run; it has head, smile")


def exported(run: runs.Ended, form: str, output: Path, *more: str) -> dict[str, str]:
    """Returns the files that an export writes, by name, without the run's own fingerprint."""
    runs.run("export", str(run.output), "--format", form, "--output", str(output), *more, output=output).done()
    files = sorted(output.iterdir()) if output.is_dir() else [output]
    texts = {path.name: path.read_text() for path in files if path.name != ".lock"}
    assert texts
    if form == "csv":  # its last column, the true label, may be a class of any head of the run
        texts = {name: re.sub(r",[^,]*$", "", text, flags=re.MULTILINE) for name, text in texts.items()}
    return {name: text.replace(run.record["run_fingerprint"], "RUN") for name, text in texts.items()}


@pytest.mark.parametrize("form", sorted(EXPORTS))
def test_an_export_of_either_head_is_that_of_its_own_run(
    alone: dict[str, runs.Ended], both: runs.Ended, tmp_path: Path, form: str
) -> None:
    for head in ("head", "smile"):
        (tmp_path / head).mkdir()
        own = exported(alone[head], form, tmp_path / "faces")
        assert exported(both, form, tmp_path / head / "faces", "--head", head) == own
        (tmp_path / "faces").rename(tmp_path / f"own_{head}")
    (tmp_path / "default").mkdir()
    assert exported(both, form, tmp_path / "default" / "faces") != own


def test_csv_without_a_name_has_the_columns_of_all_heads(both: runs.Ended, tmp_path: Path) -> None:
    header = exported(both, "csv", tmp_path / "all.csv")["all.csv"].splitlines()[0]
    assert '"label"' in header and '"smile_label"' in header


def rendered(run: runs.Ended, output: Path, *more: str) -> dict[str, bytes]:
    """Returns the pictures of all photos, by path."""
    given = ("--sample", "100", "--crops", "--sheets", *more)
    runs.run("render", str(run.output), "--output", str(output), *given, output=output).done()
    paths = [path for path in sorted(output.rglob("*")) if path.is_file() and path.name != ".lock"]
    return {path.relative_to(output).as_posix(): path.read_bytes() for path in paths}


def test_pictures_show_the_chosen_head(alone: dict[str, runs.Ended], both: runs.Ended, tmp_path: Path) -> None:
    own = rendered(alone["smile"], tmp_path / "own")
    assert len(own) == 2 * 18 + 2  # photos, crops, the sheet and the index
    assert rendered(both, tmp_path / "smile", "--head", "smile") == own
    assert rendered(both, tmp_path / "first") == rendered(alone["head"], tmp_path / "head")
    some = rendered(both, tmp_path / "yes", "--head", "smile", "--label", "yes")
    assert 2 < len(some) == 2 * alone["smile"].record["labels"]["yes"] + 2


def compared(a: runs.Ended, b: runs.Ended, output: Path, *more: str) -> dict[str, Any]:
    given = ("compare", str(a.output), str(b.output), "--output", str(output))
    runs.run(*given, *more, output=output).done()
    return json.loads((output / "comparison.json").read_text())


def test_either_head_is_compared(alone: dict[str, runs.Ended], both: runs.Ended, tmp_path: Path) -> None:
    for a, b in ((both, alone["smile"]), (alone["smile"], both), (both, both)):
        found = compared(a, b, tmp_path / f"{a.output.name}_{b.output.name}", "--head", "smile")
        assert [row["label"] for row in found["labels"]] == list(MORE)
        assert found["faces"]["same_label"] == found["faces"]["both"] == 18
        assert [found[side]["head"]["classes"] for side in "ab"] == [list(MORE)] * 2
    assert compared(both, alone["head"], tmp_path / "first")["faces"]["same_label"] == 18


def test_two_heads_of_one_run_are_compared(alone: dict[str, runs.Ended], both: runs.Ended, tmp_path: Path) -> None:
    renamed = ("--rename-classes", "yes=happy")
    found = compared(both, both, tmp_path / "two", "--head", "head", "smile", *renamed)
    first, second = (table(alone[name])["label"].to_pylist() for name in ("head", "smile"))
    agree = sum(a == "happy" and b == "yes" for a, b in zip(first, second, strict=True))
    assert found["faces"]["same_label"] == agree
    assert [row["faces_b"] for row in found["labels"]] == [second.count("yes"), 0, 0, second.count("no")]


@pytest.mark.parametrize("command", [("export", "--format", "csv"), ("render",), ("compare",)])
def test_a_head_that_the_run_does_not_have_is_refused(
    alone: dict[str, runs.Ended], both: runs.Ended, tmp_path: Path, command: tuple[str, ...]
) -> None:
    output = tmp_path / "refused"
    for run, known in ((both, "head, smile"), (alone["head"], "one head, without a name: drop the flag")):
        paths = [str(run.output)] * (2 if command[0] == "compare" else 1)
        given = (command[0], *paths, *command[1:], "--output", str(output), "--head", "nobody")
        refused = runs.run(*given, output=output)
        assert (refused.status, refused.line) == (2, f"--head nobody is not a head of this run; it has {known}")
        assert not output.exists()


def test_compare_takes_two_heads_at_most(both: runs.Ended, tmp_path: Path) -> None:
    given = ("compare", *[str(both.output)] * 2, "--output", str(tmp_path / "out"))
    refused = runs.run(*given, "--head", "head", "smile", "head", output=tmp_path / "out")
    assert (refused.status, refused.line) == (
        2, "--head takes one name, or A's and B's, not 3; drop the others",
    )  # fmt: skip


def test_evaluate_measures_the_chosen_head(bench: runs.Bench, both: runs.Ended) -> None:
    pytest.importorskip("matplotlib")
    given = ("evaluate", "--predictions", str(both.output))
    page = bench.path / "page"
    runs.run(*given, "--output", str(page), output=page).done()
    assert json.loads((page / "metrics.json").read_text())["evaluated"]["head"]["classes"] == list(runs.CLASSES)
    other = bench.path / "page_smile"
    to_smile = ("--rename-classes", "happy=yes", "neutral=no", "sad=no")
    runs.run(*given, "--head", "smile", *to_smile, "--output", str(other), output=other).done()
    about = json.loads((other / "metrics.json").read_text())["evaluated"]
    assert (about["head"]["name"], about["head"]["classes"]) == ("smile", list(MORE))


@pytest.mark.parametrize(
    "more, line",
    [
        (("{bench}/head",), "two heads are called 'head'; give one another name: --head NAME=PATH"),
        (("{bench}/smile", "write.submission_head=grin"), "write.submission_head=grin is not one of the heads: "),
        (("bundled/nobody",), "head.more=bundled/nobody is not a bundled head; known: "),
        (("bundled/ferplus",), "ferplus: the head was made for features "),
    ],
)  # fmt: skip
def test_heads_that_do_not_go_together_are_refused(
    bench: runs.Bench, source: Path, more: tuple[str, ...], line: str
) -> None:
    given = [word.format(bench=bench.path) for word in more]
    paths, settings = [word for word in given if "=" not in word], [word for word in given if "=" in word]
    ended = bench.label(source, "refused", *heads(bench, *paths), *settings)
    assert ended.status == 2
    assert ended.line.startswith(line)
    assert not (bench.path / "refused").exists()


def test_other_heads_make_another_run(bench: runs.Bench, source: Path, both: runs.Ended) -> None:
    refused = bench.label(source, "both", *heads(bench))
    assert refused.status == 2
    assert "head" in refused.line


def test_a_command_of_one_head_refuses_several(bench: runs.Bench, source: Path) -> None:
    more = f"head.more=[{bench.path / 'smile'}]"
    arguments = ["live", "--frames", str(source), "--output", str(bench.path / "live.mp4"), "--set", *runs.SMALL]
    ended = runs.run(*arguments, f"head.path={bench.head}", more, output=bench.path / "live.mp4")
    assert (ended.status, ended.line) == (2, "this command takes one head, not 2; drop head.more")
