"""The whole job against a bare loop of the same decoder and the same compiled net, in alternating pairs.

Measures images per CPU-second and per second, of the job (cache and parts written; from the first byte read to the last
part written, without the engine's start, as `run.json` has it) and of `bare_loop.py` (from its second batch on), for
face_vgg at 48×48 on images of FER2013 that all differ, in float32 and in bfloat16, and for VGG16 at 96×96 with random
weights. The figure that counts is the ratio of two runs next to each other; the median of all pairs is compared with
the target.

What comes before the first block and after the last is given apart. Then: the job with bfloat16 beside float32, the
job from its cache, and job and loop with a net that takes no CPU time, which shows by stage what the job adds.
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import measuring
from measuring import Ran

PER_CPU, PER_SECOND = 0.98, 0.95  # the targets, of the bare loop
PER_CPU_HALF = 0.95  # in bfloat16, where the net takes less and the job as much as before
HALF = "features.precision=bfloat16"
VGG16 = (
    "faces.detector=none", "features.backbone=vgg16", "features.weights=random", "features.input_size=96",
    "features.pooling=avg", "features.batch_size=32",
)  # fmt: skip
HERE = Path(__file__)


@dataclass(frozen=True)
class Case:
    """What is run: a name for people, an archive, settings and flags of the job."""

    name: str
    archive: Path
    settings: tuple[str, ...]
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rate:
    """Images, and what they took."""

    images: int
    wall_s: float
    cpu_s: float

    @property
    def per_second(self) -> float:
        return self.images / self.wall_s

    @property
    def per_cpu(self) -> float:
        return self.images / self.cpu_s

    @property
    def cpu_us(self) -> float:
        """CPU time an image, in microseconds."""
        return 1e6 * self.cpu_s / self.images


def rate_of(run: Ran) -> Rate:
    """Returns what `run.json` says of the time from the first byte read to the last part written."""
    return Rate(run.record["counts"]["images"], run.seconds["work"], run.seconds["work_cpu"])


def job(case: Case, place: Path, name: str, cache: Path | None = None) -> Ran:
    """Runs the job in a folder of its own, with a cache of its own unless one is given."""
    return measuring.label(case.archive, place / name, *case.flags, settings=case.settings, cache=cache)


def loop(case: Case, *more: str) -> Rate:
    """Runs the bare loop."""
    ran = measuring.start(HERE.with_name("bare_loop.py"), case.archive, *case.settings, *more).wait().done()
    return Rate(**json.loads(ran.out.splitlines()[-1]))


# --- tables -----------------------------------------------------------------------------------------------------------


def against_the_loop(case: Case, place: Path, pairs: int) -> list[tuple[str, bool]]:
    """Runs loop and job in turn, prints a row a pair; returns what is claimed of the medians."""
    lines: list[list[Any]] = []
    fixed = []
    for number in range(pairs):
        measuring.progress(f"{case.name}: pair {number + 1} of {pairs}")
        bare = loop(case)
        run = job(case, place, f"{case.name.split()[0]}{'half' if HALF in case.settings else ''}{number}")
        whole = rate_of(run)
        fixed.append((run.wall_s - whole.wall_s, run.cpu_s - whole.cpu_s))
        ratios = [whole.per_cpu / bare.per_cpu, whole.per_second / bare.per_second]
        lines.append([number + 1, bare.per_cpu, whole.per_cpu, bare.per_second, whole.per_second, *ratios])
    head = ["pair", "loop images/CPU-s", "job", "loop images/s", "job", "per CPU", "per second"]
    shown = [[*line[:5], measuring.ratio(line[5]), measuring.ratio(line[6])] for line in lines]
    measuring.show(f"{case.name}, {whole.images:,} images, job : loop", head, shown)
    wall, cpu = (measuring.median(values) for values in zip(*fixed, strict=True))
    print(f"\nBefore the first block and after the last: {wall:.1f} s, {cpu:.1f} CPU-s (median).")
    claims = []
    per_cpu = PER_CPU_HALF if HALF in case.settings else PER_CPU
    for column, what, target in ((5, "CPU-second", per_cpu), (6, "second", PER_SECOND)):
        found = measuring.spread([line[column] for line in lines])
        holds = measuring.median(line[column] for line in lines) >= target
        claims.append((f"{case.name}: {found} of the bare loop a {what}, target {target}", holds))
    return claims


def in_half(case: Case) -> Case:
    """Returns a case in bfloat16."""
    return Case(f"{case.name}, bfloat16", case.archive, (*case.settings, HALF), case.flags)


def half_precision(case: Case, place: Path, pairs: int) -> None:
    """Prints float32 beside bfloat16: rates, and how many labels differ."""
    half = in_half(case)
    lines = []
    for number in range(pairs):
        measuring.progress(f"bfloat16: pair {number + 1} of {pairs}")
        one, other = job(case, place, f"full{number}"), job(half, place, f"short{number}")
        full, short = rate_of(one), rate_of(other)
        differing = differing_labels(one.output, other.output)
        ratios = [measuring.ratio(short.per_cpu / full.per_cpu), measuring.ratio(short.per_second / full.per_second)]
        lines.append([number + 1, full.per_cpu, short.per_cpu, *ratios, differing, f"{differing / full.images:.3%}"])
    head = ["pair", "float32 images/CPU-s", "bfloat16", "per CPU", "per second", "labels that differ", "of all"]
    measuring.show(f"bfloat16 beside float32, {case.name}, the job", head, lines)


def differing_labels(one: Path, other: Path) -> int:
    """Returns how many lines of two submissions differ."""
    pairs = zip(measuring.submission(one), measuring.submission(other), strict=True)
    return sum(a != b for a, b in pairs)


def from_the_cache(case: Case, place: Path, pairs: int) -> None:
    """Prints the rate of the job when every image hits."""
    cache = place / "warm cache"
    job(case, place, "filling", cache)
    lines = []
    for number in range(pairs):
        measuring.progress(f"from the cache: {number + 1} of {pairs}")
        run = job(case, place, f"warm{number}", cache)
        lines.append([number + 1, rate_of(run).per_second, rate_of(run).per_cpu, rate_of(run).cpu_us, run.wall_s])
    head = ["run", "images/s", "images/CPU-s", "CPU-µs an image", "whole command, s"]
    measuring.show(f"{case.name}, {rate_of(run).images:,} images, all from the cache", head, lines)
    show_stages("From the cache, by stage", run)


def overhead(case: Case, place: Path, pairs: int) -> None:
    """Prints what job and loop cost beside the net, and the job's share by stage."""
    lines = []
    for number in range(pairs):
        measuring.progress(f"a free net: pair {number + 1} of {pairs}")
        bare = loop(case, "--free-net")
        output = place / f"free{number}"
        words = measuring.arguments(case.archive, output, *case.flags, settings=case.settings)
        run = measuring.start(HERE, "--free-net", *words, output=output).wait().done()
        whole = rate_of(run)
        lines.append([number + 1, bare.cpu_us, whole.cpu_us, whole.cpu_us - bare.cpu_us])
    head = ["pair", "loop CPU-µs an image", "job CPU-µs an image", "the job adds"]
    measuring.show(f"A net that takes no CPU time, {case.name}", head, lines)
    show_stages("The same by stage (detect is decoding, which the loop does too)", run)


def show_stages(title: str, run: Ran) -> None:
    """Prints CPU and wall time an image by stage; `other` is the graph, batching and what threads wait with."""
    images = run.record["counts"]["images"]
    wall, cpu = run.seconds["by_stage"], run.seconds["by_stage_cpu"]
    stages = [stage for stage in cpu if stage != "merge"]  # it comes after the last block
    lines = [[stage, 1e6 * cpu[stage] / images, 1e6 * wall[stage] / images] for stage in stages]
    other = run.seconds["work_cpu"] - sum(cpu[stage] for stage in stages)
    lines.append(["other", 1e6 * other / images, None])
    lines.append(["all", 1e6 * run.seconds["work_cpu"] / images, 1e6 * run.seconds["work"] / images])
    measuring.show(title, ["stage", "CPU-µs an image", "µs an image, in its threads"], lines)


# --- the program with a net that takes no CPU time --------------------------------------------------------------------


class FreeNet:
    """Stands in for the device: features of the right shape for no CPU time."""

    in_flight = 1

    def start(self, crops: Any) -> Any:
        from bare_loop import free_net

        self._features = free_net(crops)
        return self

    def features(self) -> Any:
        return self._features

    def device_names(self) -> list[str]:
        return ["none"]


def with_a_free_net(words: list[str]) -> int:
    """Runs the program in this process with `FreeNet` for a device."""
    from pipeline.cli import main as program
    from transforms import extract_features

    extract_features.get_device = lambda settings: FreeNet()  # type: ignore[assignment,return-value]
    return program(words)


# --- all of it --------------------------------------------------------------------------------------------------------


def cases(options: Namespace, place: Path) -> tuple[Case, Case]:
    """Makes the archives, and a head for VGG16."""
    source = [options.data / "fer2013" / "train.tar.gz"]
    measuring.needed(*source)
    measuring.progress("making archives")
    different = measuring.distinct(measuring.members(*source))
    faces = measuring.write_tar(place / "faces.tar", islice(different, 1500 if options.small else options.images))
    some = islice(measuring.members(faces), 128 if options.small else options.vgg_images)
    fewer = measuring.write_tar(place / "fewer.tar", some)
    head = place / "head"
    measuring.start(HERE.with_name("random_head.py"), head, *VGG16).wait().done()
    return (
        Case("face_vgg at 48×48", faces, measuring.WHOLE),
        Case("vgg16 at 96×96", fewer, VGG16, ("--head", str(head))),
    )


def main(words: Sequence[str]) -> int:
    if words and words[0] == "--free-net":
        return with_a_free_net(list(words[1:]))
    made = measuring.parser(__doc__ or "")
    made.add_argument("--images", type=int, default=20_000, help="for face_vgg")
    made.add_argument("--vgg-images", type=int, default=1_000)
    made.add_argument("--pairs", type=int, default=5)
    made.add_argument("--profile", action="store_true", help="only what the job adds, by stage, with a free net")
    options = made.parse_args(words)
    pairs = 1 if options.small else options.pairs
    with measuring.workplace(options) as place:
        face, vgg = cases(options, place)
        overhead(face, place, min(pairs, 3))
        from_the_cache(face, place, min(pairs, 3))
        if options.profile:
            return measuring.verdict([])
        claims = [claim for case in (face, in_half(face), vgg) for claim in against_the_loop(case, place, pairs)]
        half_precision(face, place, min(pairs, 3))
        return measuring.verdict(claims)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
