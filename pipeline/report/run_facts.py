"""What a run was asked and what it ran on, from `run.json`: as names and values for the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.report.charts import meter
from pipeline.settings.schema import Settings


def facts_of(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns what a reader asks first."""
    features = record.get("identity", {}).get("features", {})
    faces = features.get("faces", {})
    seconds, resume = record.get("seconds", {}), record.get("resume", {})
    shards = ", ".join(f"{count:,} {kind}" for kind, count in record.get("shards", {}).items())
    skipped = record.get("skipped_files", {})
    found = [
        ("inputs", ", ".join(record.get("inputs", ()))),
        ("read as", shards),
        ("head", str(record["head"].get("path", ""))),
        ("all heads", ", ".join(str(head["name"]) for head in record.get("heads", ()))),
        ("detector", str(faces.get("name", ""))),
        ("backbone", str(record.get("weights", {}).get("backbone", ""))),
        ("device", ", ".join(record.get("device", ())) + _in_brackets(record.get("runtime"))),
        ("time to the first block", _seconds(seconds.get("to_first_block"))),
        ("start of the runtime", _seconds(seconds.get("runtime_start"))),
        ("blocks kept from an earlier run", _count(resume.get("blocks_reused"))),
        ("passed over", _skipped(skipped)),
        ("settings changed", ", ".join(f"{name}={value}" for name, value in changed(record.get("settings", {})))),
    ]
    return [(name, value) for name, value in found if value]


def _in_brackets(text: object) -> str:
    return f" ({text})" if text else ""


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} s"


def _count(value: int | None) -> str:
    return f"{value:,}" if value else ""


def _skipped(skipped: Mapping[str, Any]) -> str:
    count = skipped.get("count", 0)
    return f"{count:,} files that are no images: {', '.join(skipped.get('names', ()))}" if count else ""


def stages_of(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the stages, the longest first."""
    seconds = record.get("seconds", {})
    wall, cpu = seconds.get("by_stage", {}), seconds.get("by_stage_cpu", {})
    most = max([*wall.values(), 1e-9])
    return [
        {"name": name, "seconds": spent, "cpu": cpu.get(name, 0.0), "meter": meter(spent / most)}
        for name, spent in sorted(wall.items(), key=lambda item: (-item[1], item[0]))
    ]


def changed(settings: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Returns the settings that differ from today's defaults."""
    usual = dict(_leaves(Settings().model_dump(mode="json")))
    return [(name, value) for name, value in _leaves(settings) if name in usual and usual[name] != value]


def settings_of(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns all settings."""
    return [(name, "null" if value is None else str(value)) for name, value in _leaves(record.get("settings", {}))]


def digests_of(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns fingerprints, digests of what was used and written, and versions."""
    found = [
        ("run fingerprint", record.get("run_fingerprint")),
        ("feature space", record.get("feature_space")),
        ("cache key", record.get("cache_key")),
        ("inputs", record.get("inputs_digest")),
        ("head", record["head"].get("digest")),
        ("weights", record.get("weights", {}).get("digest")),
        ("detector’s model", record.get("identity", {}).get("features", {}).get("faces", {}).get("model")),
        *((part["path"], f"{part['sha256']} ({part['rows']:,} rows)") for part in record.get("parts", ())[:50]),
        *record.get("versions", {}).items(),
    ]
    return [(name, str(value)) for name, value in found if value]


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
