"""The closing summary: the results of the run in plain sentences, from `run.json` alone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.run.heads_of_run import deciding_classes, heads_of
from pipeline.run.own_files import PAGE
from transforms.storage.paths import is_object


def closing_words(record: Mapping[str, Any], output: str) -> str:
    """Returns a few lines: images, faces, labels, what was rejected and why, time, and where files are."""
    counts = record["counts"]
    lines = [
        f"{_number(counts['images'])} images: {_number(counts['labelled'])} labelled, "
        f"{_number(counts['no_face'])} without a face, {_number(counts['rejected'])} rejected, "
        f"{_number(counts['duplicate'])} with a duplicate id",
        f"{_number(counts['faces'])} faces" + _listed(record["labels"]),
    ]
    lines += _further(record)
    if unlabelled := counts.get("unlabelled_faces"):  # earlier versions labelled all faces
        lines.append(_unlabelled(unlabelled, record["settings"]["faces"]["min_label_px"]))
    if record["reasons"]:
        lines.append("reasons" + _listed(record["reasons"]))
    if failed := record["reasons"].get("internal_error"):
        lines.append(
            f"{_number(failed)} of the rejected images failed because of a bug in this program (internal_error): "
            "the warnings name them; they are not cached, and --overwrite tries them again"
        )
    if record.get("accuracy") is not None:
        known = record["accuracy"]
        lines.append(f"{known['correct'] / known['known']:.4f} of {_number(known['known'])} known labels agree")
    lines.append(_work(record))
    if record.get("skipped_files", {}).get("count"):
        skipped = record["skipped_files"]
        lines.append(f"skipped {_number(skipped['count'])} files that are not images: {', '.join(skipped['names'])}")
    for note in record.get("notes", []):
        lines.append(note)
    if left_out := (record.get("submission") or {}).get("left_out"):
        lines.append(_left_out(left_out, record["submission"]["left_out_names"]))
    if record.get("submission") and (classes := deciding_classes(record)):
        lines.append(_classes(record["submission"], classes))
    names = [
        name for name in ("predictions", "images", "submission.csv", "run.json") if name in _present(record, output)
    ]
    if record.get("report", {}).get("files"):
        lines.append(f"report: {os.path.join(output, PAGE)}")
    lines.append("written: " + ", ".join(os.path.join(output, name) for name in names))
    return "\n".join(lines)


def _further(record: Mapping[str, Any]) -> list[str]:
    """Returns a line for each further head: its labels, or that it gives numbers."""
    counts = record.get("more_labels", {})
    found = ((head, counts.get(head.prefix, {})) for head in heads_of(record)[1:])
    return [head.name + (_listed(labels) if head.classes else ": a number for each face") for head, labels in found]


def _unlabelled(faces: int, min_label_px: int) -> str:
    subject = "1 face is" if faces == 1 else f"{_number(faces)} faces are"
    return f"{subject} smaller than {min_label_px} px and {'has' if faces == 1 else 'have'} no label"


def _left_out(count: int, names: Sequence[str]) -> str:
    have = "1 image has" if count == 1 else f"{_number(count)} images have"
    more = ", …" if count > len(names) else ""
    return (
        f"{have} no label and no row in submission.csv ({', '.join(names)}{more}); "
        "--set write.no_face_label=CLASS gives them one"
    )


def _classes(submission: Mapping[str, Any], classes: Sequence[str]) -> str:
    holds = "names" if submission.get("values") == "name" else "indices"  # earlier versions did not record it
    return f"submission.csv holds {holds} of classes: " + " ".join(f"{at}={name}" for at, name in enumerate(classes))


def _present(record: Mapping[str, Any], output: str) -> set[str]:
    if is_object(output):
        return {"run.json", *(file["path"].partition("/")[0] for file in record["parts"])}
    return set(os.listdir(output))


def _work(record: Mapping[str, Any]) -> str:
    seconds, cache, resume = record["seconds"], record["cache"], record["resume"]
    words = [f"{seconds['total']:.1f} s"]
    if seconds.get("images_per_s"):
        words.append(f"{seconds['images_per_s']:,.0f} images/s without startup")
    words.append(f"{_number(cache['cached'])} of {_number(cache['cached'] + cache['computed'])} results from the cache")
    if cache["damaged"]:
        words.append(f"{cache['damaged']} damaged cache files moved aside and computed again")
    if resume["blocks_reused"]:
        words.append(f"{_number(resume['blocks_reused'])} blocks reused from an earlier run")
    if resume["blocks_redone"]:
        why = "because an input changed or their part was damaged or had an internal_error"
        words.append(f"{_number(resume['blocks_redone'])} done again {why}")
    return ", ".join(words)


def _listed(counts: Mapping[str, int]) -> str:
    """Returns `: happy 3, sad 1`, the most frequent first."""
    if not any(counts.values()):
        return ""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ": " + ", ".join(f"{name} {_number(count)}" for name, count in ordered if count)


def _number(value: int) -> str:
    return f"{value:,}"
