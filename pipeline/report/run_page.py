"""The page of a run: puts its numbers, charts and pictures in the order that they are read in.

Not here: counting (`run_metrics.py`), choosing (`run_samples.py`), reading pictures (`run_pictures.py`), how it is
written (`run_report.py`), and how it looks (`templates/`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.report.charts import meter, stacked
from pipeline.report.near_misses import Candidate
from pipeline.report.overlay import COLOURS, candidate_marks, has_label, label_of, marks, name_of, percent, view_of
from pipeline.report.photo import Face, Photo
from pipeline.report.run_charts import distribution_charts, label_charts
from pipeline.report.run_facts import digests_of, facts_of, settings_of, stages_of
from pipeline.report.run_metrics import BINS
from pipeline.report.run_pictures import Pictures, faces_of
from pipeline.report.run_quality import RULES, TITLES
from pipeline.report.run_samples import Samples
from pipeline.report.templating import number, render, share
from pipeline.report.visible_names import visible
from pipeline.run.own_files import PAGE_MARK
from transforms.formats.records import Status

MEANS = {"mean_confidence": "mean confidence", "mean_intensity": "mean intensity"}  # of a label's faces
LABELS_SHOWN = 40  # rows and charts of labels: with more, the most frequent
FACES_LISTED, FACES_DRAWN = 20, 25  # of one photo; drawn are more where there are the most
MOST_DRAWN = 150  # on a photo of the most faces: more would hide it
TINY = 200  # pixels of the longer side up to which photos stand closer
MATRIX = 16  # classes up to which a confusion matrix is shown
SHADES = 4


@dataclass(frozen=True, slots=True)
class RunContent:
    """What the page shows.

    Attributes:
        record: `run.json` without what it says of this page.
        metrics: as `RunMetrics.result` gives them. `repeats`: as `Repeats.result` does.
        similar, quality: as in `report.json`.
        near_misses: as `NearMisses.result` gives them.
        samples, pictures: what is shown of the photos.
    """

    record: Mapping[str, Any]
    metrics: Mapping[str, Any]
    repeats: Mapping[str, Any]
    similar: Mapping[str, Any]
    quality: Mapping[str, Any]
    near_misses: Mapping[str, Any]
    samples: Samples
    pictures: Pictures

    @property
    def classes(self) -> list[str]:
        """Names of the labels."""
        return list(self.record["head"]["classes"])


def run_page(content: RunContent) -> bytes:
    """Returns the page, UTF-8."""
    photos = _Photos(content)
    rows, charts = _label_rows(content), label_charts(content.metrics, LABELS_SHOWN)
    shown = bool(content.pictures.photos)
    groups = [group for group in _groups(content, photos) if group["photos"]] if shown else []
    no_face = list(_no_face(content, photos)) if shown else []
    least = photos.tiles(content.samples.least_certain)
    galleries = list(_galleries(content, photos))
    similar = list(_similar(content, photos))
    context = {
        "generator": PAGE_MARK.decode(),
        "record": content.record,
        "counts": content.record["counts"],
        "metrics": content.metrics,
        "cards": list(_cards(content.record)),
        **_account(content.record["counts"]),
        "notes": [visible(note, 400) for note in content.record.get("notes", ())],
        "label_rows": rows,
        "means": [words for name, words in MEANS.items() if name in content.metrics["labels"][0]],
        "unlabelled": (unlabelled := _unlabelled(content)),
        "unlabelled_meter": meter(unlabelled / max(1, content.record["counts"]["faces"])),
        "charts": distribution_charts(content.metrics),
        "label_charts": charts,
        "labels_left": sum(row["faces"] > 0 for row in content.metrics["labels"]) - len(charts),
        "bins": BINS,
        "pictures_note": _pictures_note(content),
        "groups": groups,
        "least_certain": least,
        "galleries": galleries,
        "similar": content.similar,
        "similar_groups": similar,
        "behind": photos.not_shown(),
        "photos_shown": photos.shown(),
        "no_face": no_face,
        "no_face_shown": sum(len(group["photos"]) for group in no_face),
        "near_misses": content.near_misses,
        "repeats": content.repeats,
        "quality": list(_quality(content, photos)),
        "pictures_measured": content.quality["pictures_measured"],
        "known": _known(content),
        "facts": facts_of(content.record),
        "stages": stages_of(content.record),
        "settings": settings_of(content.record),
        "digests": digests_of(content.record),
    }
    context["sections"] = list(_sections(context))
    return render("run_report.html.j2", style="run_report.css", script="run_report.js", **context)


def _sections(context: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "outcome", "Outcome"
    yield "sure", "Confidence and sizes"
    yield from ((group["id"], group["title"]) for group in context["groups"])
    for id_, title, there in (
        ("least-certain", "Least certain", "least_certain"),
        ("galleries", "Label by label", "galleries"),
        ("similar", "Near-duplicates", "similar_groups"),
        ("no-face", "No labelled face", "no_face"),
    ):
        if context[there]:
            yield id_, title
    if context["metrics"]["rejected"]:
        yield "rejected", "Rejected"
    yield "quality", "Picture quality"
    if context["repeats"]:
        yield "repeats", "Repeats"
    if context["known"]:
        yield "known", "Known labels"
    yield "how", "How it was made"


def _cards(record: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    counts, seconds = record["counts"], record.get("seconds", {})
    yield "images", number(counts["images"]), ""
    for key, name in ((Status.LABELLED, "labelled"), (Status.NO_FACE, "without a face"), (Status.REJECTED, "rejected")):
        yield name, number(counts[key.value]), share(counts[key.value] / counts["images"]) if counts["images"] else ""
    if counts["duplicate"]:
        yield "duplicate ids", number(counts["duplicate"]), "the first of an id counts"
    looked = counts["labelled"] + counts["no_face"]
    yield "faces", number(counts["faces"]), f"{counts['faces'] / looked:.2f} an image" if looked else ""
    cache = record.get("cache")
    if cache and (both := cache["cached"] + cache["computed"]):
        yield "cached", share(cache["cached"] / both), f"{number(cache['cached'])} of {number(both)} results"
    if seconds.get("total") is not None:
        rate = seconds.get("images_per_s")
        yield "time", duration(seconds["total"]), f"{rate:,.0f} images/s without the start" if rate else ""


def duration(seconds: float) -> str:
    """Returns a time as a person says it.

    >>> duration(7.25), duration(150), duration(9000)
    ('7.2 s', '2 min 30 s', '2 h 30 min')
    """
    whole = round(seconds)
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 7200 else f"{whole // 3600:,} h {whole % 3600 // 60} min"


def _account(counts: Mapping[str, int]) -> dict[str, Any]:
    parts = [
        ("labelled", counts["labelled"], "labelled"),
        ("no face", counts["no_face"], "none"),
        ("rejected", counts["rejected"], "rejected"),
        ("duplicate ids", counts["duplicate"], "duplicate"),
    ]
    words = ", ".join(f"{number(count)} {name}" for name, count, _ in parts)
    return {"account": stacked(parts, f"Every image accounted for: {words}"), "account_parts": parts}


def _label_rows(content: RunContent) -> list[dict[str, Any]]:
    labels, total = content.metrics["labels"], max(1, content.record["counts"]["faces"])
    order = sorted(range(len(labels)), key=lambda index: (-labels[index]["faces"], index))[:LABELS_SHOWN]
    shown = bool(content.pictures.faces)
    return [
        {
            "index": index,
            "look": index % COLOURS,
            "name": labels[index]["label"],
            "faces": labels[index]["faces"],
            "share": labels[index]["faces"] / total,
            "meter": meter(labels[index]["faces"] / total),
            "means": [labels[index][name] for name in MEANS if name in labels[index]],
            "unsure": labels[index]["unsure"],
            "unsure_share": labels[index]["unsure"] / max(1, labels[index]["faces"]),
            "gallery": shown and bool(_pictured(content, content.samples.galleries.get(index, ()))),
        }
        for index in order
    ]


def _unlabelled(content: RunContent) -> int:
    return int(content.record["counts"]["faces"] - sum(label["faces"] for label in content.metrics["labels"]))


def _pictured(content: RunContent, faces: Sequence[tuple[Photo, Face]]) -> list[tuple[Photo, Face]]:
    return [(photo, face) for photo, face in faces if (photo.row, face.number) in content.pictures.faces]


def _pictures_note(content: RunContent) -> str:
    missing = content.pictures.missing
    if not missing:
        return ""
    why = f" ({visible(content.pictures.fault, 300)})" if content.pictures.fault else ""
    how = "“python -m pipeline report RUN --images PATTERN” says where they lie now"
    if not content.pictures.photos:
        return f"No photo could be read again{why}, so this page has no pictures; its numbers are whole. {how}."
    what = "photo" if missing == 1 else "photos"
    return f"{number(missing)} {what} chosen for this page could not be read again unchanged{why}. {how}."


def _groups(content: RunContent, photos: _Photos) -> Iterator[dict[str, Any]]:
    samples = content.samples
    yield {
        "id": "most-faces",
        "title": "Photos with the most faces",
        "words": "A label is drawn where it has room; all are listed below the photo. Choose a photo to enlarge it.",
        "photos": [photos.figure(photo) for photo in samples.most_faces],
    }
    yield {
        "id": "sample",
        "title": "A sample",
        "words": "Labelled photos, chosen at random (seed: the run’s fingerprint).",
        "photos": [photos.figure(photo) for photo in samples.sample],
    }


def _no_face(content: RunContent, photos: _Photos) -> Iterator[dict[str, Any]]:
    """Yields the photos without a labelled face in groups: with faces too small, almost with one, with nothing."""
    near, found = content.near_misses, content.pictures.candidates
    almost = ""
    if "threshold" in near:
        almost = (
            f"The detector’s best boxes below its threshold of {near['threshold']:.2f}, down to {near['down_to']:.2f}, "
            f"with their scores. Where they are faces, a lower {near['setting']} would take them."
        )
    groups: dict[str, list[Photo]] = {"small": [], "almost": [], "nothing": []}
    for photo in content.samples.no_face:
        kind = "small" if photo.face_count else "almost" if found.get(photo.row) else "nothing"
        groups[kind].append(photo)
    groups["almost"].sort(key=lambda photo: -found[photo.row][0].score)
    for kind, title, words in (
        ("small", "Only faces that are too small to label", _small_words(content.record)),
        ("almost", "Almost a face", almost),
        ("nothing", "Nothing like a face", ""),
    ):
        if groups[kind]:
            yield {"id": kind, "title": title, "words": words, "photos": [photos.figure(p) for p in groups[kind]]}


def _galleries(content: RunContent, photos: _Photos) -> Iterator[dict[str, Any]]:
    for index, faces in content.samples.galleries.items():
        if tiles := photos.tiles(faces):
            label = content.metrics["labels"][index]
            yield {
                "index": index,
                "look": index % COLOURS,
                "name": label["label"],
                "count": label["faces"],
                "faces": tiles,
            }


def _similar(content: RunContent, photos: _Photos) -> Iterator[dict[str, Any]]:
    for group, faces in zip(content.similar.get("largest", ()), content.samples.similar, strict=False):
        if len(tiles := photos.tiles(faces)) > 1:
            yield {**group, "tiles": tiles}


def _quality(content: RunContent, photos: _Photos) -> Iterator[dict[str, Any]]:
    for name, rule in RULES.items():
        found = content.quality[name]
        shown = found.get("photos", [{"row": None, "image_id": name} for name in found.get("names", ())])
        whole = "names" in found
        if not whole and not content.quality["pictures_measured"]:
            continue
        yield {
            "name": TITLES.get(name, name),
            "rule": rule,
            "of": "all" if whole else "on this page",
            "images": found["images"],
            "photos": [{**photo, "link": photos.is_shown(photo["row"])} for photo in shown],
        }


class _Photos:
    """Figures of photos, each on the page once."""

    def __init__(self, content: RunContent) -> None:
        self._content = content
        self._shown: set[int] = set()
        self._alone = faces_of(content.samples)
        self._most = {photo.row for photo in content.samples.most_faces}
        self._wanted: dict[int, Photo] = {}

    def figure(self, photo: Photo) -> dict[str, Any]:
        """Returns what a template needs to draw it, and notes that it is shown."""
        self._shown.add(photo.row)
        classes, picture = self._content.classes, self._content.pictures.photos.get(photo.row)
        name, faces = visible(photo.image_id), photo.faces[:FACES_LISTED]
        most = MOST_DRAWN if photo.row in self._most else FACES_DRAWN
        weak = self._content.pictures.candidates.get(photo.row, ())
        drawn = marks(photo, [visible(name, 24) for name in classes], most, self._alone.get(photo.row, ()))
        drawn += candidate_marks(photo, weak)
        return {
            "row": photo.row,
            "tiny": max(photo.width, photo.height) <= TINY,
            "name": name,
            "about": _about(photo) + (f", {len(drawn)} drawn" if len(drawn) < photo.face_count else ""),
            "weak": _weak_words(weak),
            "words": f"Photo {name}: {_summary(photo, classes)}{'; ' if weak else ''}{_weak_words(weak)}",
            "summary": _summary(photo, classes),
            "labels": sorted({face.label for face in photo.faces if has_label(face)}),
            "picture": picture.data if picture else None,
            "view": view_of(photo),
            "marks": drawn,
            "under": "".join(f"M{m.x} {m.y}h{m.width}v{m.height}h-{m.width}z" for m in drawn if not m.whole),
            "left": photo.face_count - len(faces),
            "faces": [
                {
                    "number": face.number,
                    "look": face.label % COLOURS,
                    "label": visible(label_of(face, classes), 40),
                    "confidence": percent(face.confidence) if has_label(face) else "",
                    "score": f"{face.score:.2f}",
                }
                for face in faces
            ],
        }

    def tiles(self, faces: Sequence[tuple[Photo, Face]]) -> list[dict[str, Any]]:
        """Returns what a template needs for faces shown by themselves; their photos are to be shown, too."""
        return [self._tile(photo, face) for photo, face in _pictured(self._content, faces)]

    def _tile(self, photo: Photo, face: Face) -> dict[str, Any]:
        self._wanted.setdefault(photo.row, photo)
        label = visible(label_of(face, self._content.classes), 40)
        return {
            "row": photo.row,
            "picture": self._content.pictures.faces[photo.row, face.number],
            "label": label,
            "confidence": percent(face.confidence) if has_label(face) else "",
            "words": f"Face {face.number} of {visible(photo.image_id, 60)}",
        }

    def is_shown(self, row: int | None) -> bool:
        """True if the photo has a figure, or will have one."""
        return row in self._shown or row in self._wanted

    def shown(self) -> set[int]:
        """Returns the rows of the photos that have a figure, or will have one."""
        return self._shown | set(self._wanted)

    def not_shown(self) -> list[dict[str, Any]]:
        """Returns the photos that faces lead to and that stand nowhere else."""
        return [self.figure(photo) for row, photo in self._wanted.items() if row not in self._shown]


def _small_words(record: Mapping[str, Any]) -> str:
    least = record.get("settings", {}).get("faces", {}).get("min_label_px")
    small = f"Their faces are smaller than faces.min_label_px, {least} pixels. " if least else ""
    return f"{small}Dashed: boxes below the detector’s threshold."


def _weak_words(candidates: Sequence[Candidate]) -> str:
    if not candidates:
        return ""
    return f"best candidate{'s' if len(candidates) > 1 else ''} {', '.join(f'{one.score:.2f}' for one in candidates)}"


def _about(photo: Photo) -> str:
    stated = f", stated {visible(photo.true_label, 60)}" if photo.true_label is not None else ""
    return f"{photo.width} × {photo.height}{stated}"


def _summary(photo: Photo, classes: Sequence[str]) -> str:
    if not photo.face_count:
        return "no face"
    counts = photo.label_counts or tuple(Counter(face.label for face in photo.faces).items())
    named = [(name_of(label, classes), count) for label, count in counts]
    listed = sorted(named, key=lambda item: (-item[1], item[0]))
    labels = ", ".join(f"{number(count)} {visible(name, 40)}" for name, count in listed[:8])
    return f"{number(photo.face_count)} {'face' if photo.face_count == 1 else 'faces'}: {labels}"


def _known(content: RunContent) -> dict[str, Any] | None:
    known = content.metrics["known"]
    if known is None:
        return None
    names = content.classes
    rows = [
        {"name": name, "cells": _cells(counts)}
        for name, counts in zip(names, known["confusion"], strict=True)
        if len(names) <= MATRIX
    ]
    return {**known, "share": share(known["correct"] / known["images"]), "names": [*names, "no face"], "rows": rows}


def _cells(counts: Sequence[int]) -> list[dict[str, int]]:
    total = max(1, sum(counts))
    return [{"count": count, "shade": min(SHADES, -(-SHADES * count // total))} for count in counts]
