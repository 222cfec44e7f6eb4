"""`evaluate-detector`: measures how well the chosen detector finds known faces; tables, metrics, plots and a page.

Images are read and decoded as in a run, but outside the graph: no features, no head, no cache. Not here: what is judged
(`known_and_found.py`), and what is written (`detection_files.py`).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from models.backbones.registry import backbone
from models.detectors.options import DetectorError
from models.detectors.registry import Detector, DetectorSpec
from pipeline.commands.command import Context
from pipeline.commands.evaluate_detector import EvaluateDetectorOptions
from pipeline.errors import UsageError
from pipeline.report.detection_files import FILES, Given, closing_words, write_detection
from pipeline.report.detection_groups import check_groups
from pipeline.report.known_and_found import Compared, Outside, check_words, compare
from pipeline.report.second_look import (
    DetectorSteps,
    Explained,
    HarderPhotos,
    Look,
    Ways,
    image_named,
    in_steps,
    look_again,
    ways_of,
)
from pipeline.run.claim import Work, asked, claim
from pipeline.run.identity import SMALLEST_SIDE_PX, detector_spec
from pipeline.run.output_folder import OutputFolder
from pipeline.run.plan import Layout, Plan, make_plan
from pipeline.run.search_faces import CpuSeconds, Looking, search
from pipeline.settings.schema import Settings
from transforms.formats.annotations import Annotations, UnknownColumn, merged, read_annotations
from transforms.formats.records import Limits
from transforms.storage.paths import is_local
from transforms.storage.store import open_file

CLOSER: dict[str, Any] = {"by_change": [], "by_step": [], "by_way": [], "explained": None}  # of a second look


def run(options: EvaluateDetectorOptions, context: Context) -> int:
    """Writes tables, metrics, plots, picture sheets and a page into the output folder."""
    _require_matplotlib()
    settings = context.settings
    table = _known(options.boxes, options.by)
    outside = Outside(frozenset(options.ignore), options.min_face or 0.0)
    check_words(outside.words, table)
    check_groups(table)
    looking = _looking(settings)
    output = os.path.abspath(options.output)
    with _working_folder(output) as work:
        claim(output, _work(options, settings), overwrite=options.overwrite)
        plan = _plan(options.images, work, settings, looking.limits)
        spent = CpuSeconds()
        compared = compare(search((line for _, line in plan.lines()), looking, spent), table, outside)
        about = {
            "images": list(options.images),
            "boxes": list(options.boxes),
            "form": table.form,
            "detector": detector_spec(settings).describe(),
            "ignore": sorted(outside.words),
            "min_face_px": outside.min_face_px,
        }
        looks = _looks(options, detector_spec(settings), looking.detector, compared)
        look_again(compared, list(looks.values()), (line for _, line in plan.lines()), looking.limits)
        lines = (line for _, line in plan.lines())
        closer = CLOSER | {name: look.metrics() for name, look in looks.items()}
        explained = next((look.picture for look in looks.values() if isinstance(look, Explained)), b"")
        given = Given(compared, about, options.threshold, spent, lines, looking.limits, closer, explained)
        metrics = write_detection(output, given)
    if not context.quiet:
        print(closing_words(metrics, options.output))
    return 0


def _work(options: EvaluateDetectorOptions, settings: Settings) -> Work:
    identity = {"options": asked(options, besides=()), "detector": detector_spec(settings).describe()}
    return Work(command="evaluate-detector", files=FILES, identity=identity)


def _require_matplotlib() -> None:
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError(
            "evaluate-detector draws with matplotlib, which is not installed: "
            "pip install 'facelabel-pipeline[evaluate]'"
        )


def _known(paths: tuple[str, ...], columns: tuple[str, ...]) -> Annotations:
    tables = []
    for path in paths:
        try:
            if is_local(path) and not os.path.isfile(path):
                raise UsageError(f"--boxes {path}: no such file")
            with open_file(path) as file:
                tables.append((path, read_annotations(file, path, columns)))
        except UnknownColumn as error:
            raise UsageError(f"--by: {error}") from error
    return merged(tables)


def _looks(
    options: EvaluateDetectorOptions, spec: DetectorSpec, detector: Detector, compared: Compared
) -> dict[str, Look]:
    """Returns what the second pass is for, by the name of its metrics."""
    least = -np.inf if options.threshold is None else options.threshold
    looks: dict[str, Look] = {}
    if options.changes:
        looks["by_change"] = HarderPhotos(detector, least)
    if options.steps:
        looks["by_step"] = DetectorSteps(in_steps(detector, spec.name, "--steps"))
        ways = {words: other.load() for words, other in ways_of(spec).items()}
        looks |= {"by_way": Ways(ways, least)} if ways else {}
    if options.explain:
        explainer = in_steps(detector, spec.name, "--explain")
        looks["explained"] = Explained(explainer, image_named(compared, options.explain))
    return looks


def _looking(settings: Settings) -> Looking:
    try:
        detector: Detector = detector_spec(settings).load()
    except DetectorError as error:
        raise UsageError(str(error)) from error
    channels = max(detector.channels, backbone(settings.features.backbone).channels)  # the same decoding as in a run
    limits = Limits(settings.read.max_image_bytes, settings.read.max_pixels)
    return Looking(detector, limits, channels, SMALLEST_SIDE_PX)


def _plan(patterns: tuple[str, ...], work: str, settings: Settings, limits: Limits) -> Plan:
    layout = Layout(settings.read.block_images, settings.read.block_bytes)
    output = os.path.dirname(work)
    return make_plan(patterns, os.path.join(work, "plan"), layout, limits, flag="--images", own=(work, output))


@contextmanager
def _working_folder(output: str) -> Iterator[str]:
    """Provides `output/work` for one evaluation and removes it at the end."""
    folder = OutputFolder(os.path.join(output, "work"))
    with folder.locked():
        try:
            yield folder.path
        finally:
            shutil.rmtree(folder.path, ignore_errors=True)
