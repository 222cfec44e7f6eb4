"""Two thousand damaged images and two hundred damaged archives, the same each time, held against the oracle.

`tests/benchmarks/fuzz.py` does the same with as many as you like. `python tests/mutants.py image NUMBER` writes one of
them (with the checkout and `tests` on PYTHONPATH).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL", reason="pictures of most kinds are written by Pillow")

import against_pillow
import archive_oracle
import judging
import kinds
import mutants
import pictures
from archive_oracle import judge_archive
from judging import PERTURBED, Judged, Report, Way, judge_block, judge_image
from mutants import Mutant

from transforms.formats.decode import Decoded
from transforms.formats.records import Entry, Limits, RejectedContent
from transforms.formats.shards.tar import Tar

IMAGES, ARCHIVES = range(2000), range(200)
MOST_CPU_S = 5.0  # of one image or archive; the slowest known takes a tenth
MOST_PEAK_KB = 3 * 2**19  # of a process that judges all of them one after the other


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def images(folder: Path) -> tuple[Report, ...]:
    return _in_two_processes("images", IMAGES, folder)


@pytest.fixture(scope="module")
def archives(folder: Path) -> tuple[Report, ...]:
    return _in_two_processes("archives", ARCHIVES, folder)


@pytest.fixture(scope="module")
def sound(folder: Path) -> tuple[Report, ...]:
    return _in_two_processes("kinds", range(len(kinds.kinds())), folder)


def _in_two_processes(what: str, numbers: range, folder: Path) -> tuple[Report, ...]:
    """Returns what came of the same files with fresh memory filled in two ways; the first is held against Pillow."""

    def run(perturb: int) -> Report:
        more = ["--pillow"] if perturb == PERTURBED[0] else []
        return judging.supervised(what, numbers, folder / f"{what}-{perturb}", *more, perturb=perturb)

    with ThreadPoolExecutor(2) as pool:
        return tuple(pool.map(run, PERTURBED))


@pytest.fixture(params=["images", "archives", "sound"])
def reports(request: pytest.FixtureRequest) -> tuple[Report, ...]:
    found: tuple[Report, ...] = request.getfixturevalue(request.param)
    return found


# --- what must hold ---------------------------------------------------------------------------------------------------


def test_no_file_ends_the_process(reports: tuple[Report, ...]) -> None:
    assert [report.ended for report in reports] == [{}, {}]


def test_every_file_is_judged_once(
    images: tuple[Report, ...], archives: tuple[Report, ...], sound: tuple[Report, ...]
) -> None:
    for both, numbers in ((images, IMAGES), (archives, ARCHIVES), (sound, range(len(kinds.kinds())))):
        for report in both:
            assert [one.number for one in report.judged if one.name != "block"] == list(numbers)


def test_nothing_but_documented_errors_and_a_row_each(reports: tuple[Report, ...]) -> None:
    faults = [(one.number, one.name, one.how, one.fault) for report in reports for one in report.judged if one.fault]
    assert faults == []


def test_what_nobody_wrote_reaches_no_result(reports: tuple[Report, ...]) -> None:
    if reports[0].fresh == reports[1].fresh:
        pytest.skip("MALLOC_PERTURB_ fills nothing here: needs glibc")
    assert judging.differences(*reports) == []


def test_pixels_are_those_of_pillow_where_both_take_an_image(images: tuple[Report, ...]) -> None:
    """Damage leaves a reader a choice at times, as where a run of a BMP was lost: few may differ."""
    compared = Counter(one.pillow for one in images[0].judged)
    assert compared["agree"] > 200
    apart = [(one.number, one.name, one.how, one.apart) for one in images[0].judged if one.pillow == "differ"]
    assert len(apart) <= judging.MOST_APART * (len(apart) + compared["agree"]), apart


def test_time_and_memory_are_bounded(reports: tuple[Report, ...]) -> None:
    slow = [one for report in reports for one in report.judged if one.cpu_s > MOST_CPU_S]
    assert [(one.number, one.name, one.how, one.cpu_s) for one in slow] == []
    assert reports[1].peak_kb < MOST_PEAK_KB  # in the first process Pillow may take more


def test_a_number_means_the_same_mutant_in_every_process(
    images: tuple[Report, ...], archives: tuple[Report, ...]
) -> None:
    for report, make in ((images[0], mutants.image_mutant), (archives[0], mutants.archive_mutant)):
        for one in [one for one in report.judged if one.name != "block"][::20]:
            mutant = make(one.number)
            assert (mutant.name, mutant.how, mutants.digest(mutant.data)) == (one.name, one.how, one.given)


def test_mutants_get_past_the_first_check(images: tuple[Report, ...], archives: tuple[Report, ...]) -> None:
    """Or the fuzzer would look at nothing but refusals."""
    outcomes = Counter(one.outcome.partition(" ")[0] for one in images[0].judged)
    assert outcomes["pixels"] > len(IMAGES) / 6
    assert {"truncated", "undecodable", "too_many_pixels"} <= outcomes.keys()
    taken = {one.name.partition("/")[0] for one in images[0].judged if one.outcome.startswith("pixels")}
    assert {"jpeg", "png", "gif", "bmp", "pnm", "webp", "tiff"} <= taken
    assert len({one.name for one in archives[0].judged}) == len(mutants.archives())


# --- the oracle sees faults -------------------------------------------------------------------------------------------


def _png() -> Mutant:
    return Mutant(1, "png", (), pictures.png(pictures.quarters()), {})


def test_an_exception_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(data: bytes, **settings: object) -> Decoded:
        raise ZeroDivisionError("a depth of 0")

    monkeypatch.setattr(judging, "decode", fails)
    assert judge_image(_png(), Way()).fault == "ZeroDivisionError: a depth of 0"


def test_a_shape_that_was_not_told_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "decode", lambda data, **settings: Decoded(np.zeros((3, 4, 3), np.uint8), 3, 4, 1))
    assert "(3, 4, 3)" in judge_image(_png(), Way()).fault


def test_another_pixel_than_pillows_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert judge_image(_png(), Way()).pillow == "agree"
    wrong = pictures.quarters()
    wrong[0, 0] = 9
    monkeypatch.setattr(judging, "decode", lambda data, **settings: Decoded(wrong, 32, 48, 1))
    assert judge_image(_png(), Way()).pillow == "differ"


def test_who_takes_an_image_is_told() -> None:
    text = Mutant(1, "text", (), b"I am no image", {})
    assert judge_image(text, Way()).pillow == "neither"
    assert judge_image(_png(), Way(channels=1, pillow=False)).pillow == ""


def test_a_row_with_another_reason_is_a_fault(tmp_path: Path) -> None:
    alone = judge_image(_png(), Way())
    assert judge_block([_png()], [alone], tmp_path).fault == ""
    assert "truncated" in judge_block([_png()], [Judged(1, "png", (), "", "truncated 3x3")], tmp_path).fault


def test_other_results_are_differences() -> None:
    one = Report(1, [Judged(1, "png", (), "a", "x"), Judged(2, "png", (), "a", "x")], {})
    other = Report(2, [Judged(1, "png", (), "a", "x"), Judged(2, "png", (), "a", "y")], {})
    assert [(a.outcome, b.outcome) for a, b in judging.differences(one, other)] == [("x", "y")]


def test_a_process_that_ends_is_told_and_the_rest_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    statuses = iter([-11, 0])

    def ends(what: str, numbers: range, report: Path, *more: str, perturb: int) -> int:
        Path(f"{report}.err").write_text("Segmentation fault")
        status = next(statuses)
        judged = numbers[:2] if status else numbers
        report.open("a").write("".join(f"{json.dumps(_line(number))}\n" for number in judged) + '{"num')
        return status

    monkeypatch.setattr(judging, "_start", ends)
    report = judging.supervised("images", range(5), tmp_path / "report", perturb=1)
    assert list(report.ended) == [2] and "Segmentation fault" in report.ended[2]
    assert [one.number for one in report.judged] == [0, 1, 3, 4]


def test_a_block_that_ends_the_process_is_told_by_its_last_image() -> None:
    images = [Judged(number, "png", (), "a") for number in range(500, 600)]
    block = Judged(500, "block", (), "")
    assert judging._lost(range(500, 900), images, in_blocks=True) == (599, 600)
    assert judging._lost(range(500, 900), [*images, block], in_blocks=True) == (600, 601)
    assert judging._lost(range(500, 900), images[:7], in_blocks=True) == (507, 508)
    assert judging._lost(range(500, 507), images[:7], in_blocks=True) == (506, 507)
    assert judging._lost(range(500, 900), [], in_blocks=True) == (500, 501)
    assert judging._lost(range(500, 900), images, in_blocks=False) == (600, 601)


def _line(number: int) -> dict[str, object]:
    return {"number": number, "name": "png", "how": [], "given": ""}


class _Forgets(Tar):
    """Loses the last member, and says nothing."""

    def stream(self, file: object, limits: Limits) -> Iterator[object]:  # type: ignore[override]
        yield from list(super().stream(file, limits))[:-1]  # type: ignore[arg-type]

    def list(self, file: object, limits: Limits) -> Iterator[Entry]:  # type: ignore[override]
        yield from [*super().list(file, limits)][:-1]  # type: ignore[arg-type]


def test_a_member_without_a_row_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, data = mutants.archives()["pax.tar"]
    mutant = Mutant(1, "pax.tar", (), data, whole)
    assert judge_archive(mutant)[1] == ""
    monkeypatch.setattr(archive_oracle, "format_of", lambda name, first: _Forgets())
    assert judge_archive(mutant) == ("objected", f"without a row: {list(whole)[-1]}")


@pytest.mark.parametrize("name", mutants.archives())
def test_sound_archives_give_all_their_members(name: str) -> None:
    whole, data = mutants.archives()[name]
    form = archive_oracle.format_of(name, data)
    assert form is not None
    members = archive_oracle._members(form, data)
    assert {member.name: member.data for member in members} == whole


# --- every kind -------------------------------------------------------------------------------------------------------


EXCUSED = {  # sound files that Pillow decodes wrongly
    "png/grey 4 bits tRNS", "png/grey 4 bits interlaced tRNS", "png/RGB 16 bits tRNS",
    "png/RGB 16 bits interlaced tRNS", "tiff/planes 16 bits", "tiff/planes in tiles 16 bits",
    "tiff/by hand multiplied alpha 16 bits",
}  # fmt: skip


@pytest.mark.parametrize("name", kinds.kinds())
def test_every_kind_is_decoded_as_pillow_does_it_or_refused(name: str) -> None:
    judged = judge_image(Mutant(1, name, (), kinds.kinds()[name], {}), Way())
    assert judged.fault == ""
    assert judged.pillow in ("agree", "only we", "only they") or name in EXCUSED, judged.apart


def test_where_pillow_is_excused_ours_is_exact() -> None:
    """Of the sound files that differ for a known fault of Pillow's, the pixels are known."""
    deep = np.round(kinds.deep(kinds.colours()) / 257)
    clear = kinds.grey() >> 4 == kinds.grey()[3, 5] >> 4
    for name, wanted in {
        "tiff/planes 16 bits": deep,
        "png/grey 4 bits tRNS": np.where(clear, 255, (kinds.grey() >> 4) * 17)[..., None].repeat(3, axis=2),
        "png/RGB 16 bits tRNS": np.where((deep == deep[3, 5]).all(axis=2)[..., None], 255, deep),
    }.items():
        assert against_pillow.excuse(kinds.kinds()[name])
        assert np.array_equal(judging.decode(kinds.kinds()[name], channels=3, limits=Limits()).image, wanted), name


def test_what_stands_for_pillow_refuses_what_has_no_white() -> None:
    floats = pictures.tiff(pictures.gradient(9, 9).astype(np.float32))
    theirs = against_pillow.by_pillow(floats, 10**8)
    assert (theirs.pixels, theirs.why) == (None, "mode F")
    with pytest.raises(RejectedContent):
        judging.decode(floats, channels=3, limits=Limits())
