"""The target of each gathered image: its label, shares of classes (`--soft-labels`), or both.

Not here: reading the images (`gathering.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from models.training.groups import joined
from models.training.head_data import Blend, Labels, Rows, Votes
from pipeline.errors import UsageError
from pipeline.run.notes import note
from pipeline.run.rename_classes import class_pairs
from pipeline.run.soft_labels import read_source, renamed
from transforms.formats.soft_labels import SoftLabels
from transforms.training_rows import TrainingRows


@dataclass(frozen=True, slots=True)
class Labelled:
    """Features with their targets.

    Attributes:
        features: n rows.
        labels: labels, votes or both.
        groups: (n,) equal for rows that stay together in a split.
        digests: of the images, n; none for a part of the rows.
        ids: of the images, n, fetched on request; None for a part of the rows.
    """

    features: Rows
    labels: Labels
    groups: np.ndarray
    digests: list[bytes] = field(default_factory=list)
    ids: Rows | None = None

    def __len__(self) -> int:
        return len(self.features)


@dataclass(frozen=True, slots=True)
class Shares:
    """What `--soft-labels` say.

    Attributes:
        learned: shares of the classes that count.
        given: all shares in the table, unchanged.
        reject: classes of these; what one of them leads is not learned, though it has a label.
    """

    learned: SoftLabels
    given: SoftLabels
    reject: tuple[str, ...] = ()

    def silences(self, image_id: str) -> bool:
        """True if a class of `reject` leads an image's votes; ties go to the first class, as for a backbone."""
        row = self.given.of(image_id)
        return row is not None and self.given.classes[int(row.argmax())] in self.reject


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which targets count.

    Attributes:
        soft_labels: path of the shares; None where labels alone are learned.
        classes: classes that count; all if empty.
        rename_classes: `OTHER=CLASS` pairs for the classes of the shares.
        reject: classes of the shares that mean "no label".
        soft_share: weight of the shares in the target; the rest is the label; 1 for the shares alone.
        group_by: pattern; images whose ids give the same match stay together in every split.
    """

    soft_labels: str | None = None
    classes: tuple[str, ...] = ()
    rename_classes: tuple[str, ...] = ()
    reject: tuple[str, ...] = ()
    soft_share: float = 1.0
    group_by: str | None = None

    @property
    def is_blended(self) -> bool:
        """True if targets blend labels and shares."""
        return self.soft_share < 1


def read_shares(wanted: Wanted) -> Shares | None:
    """Returns the shares of `--soft-labels`, cut to the classes that count; None if only the inputs' labels count.

    Raises:
        UsageError: --soft-labels lack a class of --classes or --reject, or flags contradict `head.soft_share`.
    """
    if not wanted.soft_labels:
        if wanted.is_blended:
            raise UsageError("head.soft_share needs --soft-labels; give both, or drop head.soft_share")
        return None
    source, names = read_source(wanted.soft_labels), class_pairs(wanted.rename_classes, "happiness=happy")
    reject = wanted.reject
    if wanted.is_blended:
        _check_silencing(source, names, reject)
        names |= dict.fromkeys(reject)
    votes = renamed(source, names)
    named = {"classes": wanted.classes, "reject": reject}
    for flag, given in () if wanted.is_blended else named.items():  # then --classes names labels
        if unknown := sorted(set(given) - set(votes.classes)):
            raise UsageError(
                f"--{flag} {' '.join(unknown)}: --soft-labels has no such class; known: {', '.join(votes.classes)}"
            )
    silencing = reject if wanted.is_blended else ()
    if not wanted.classes:
        return Shares(votes, source, silencing)
    kept = {*wanted.classes, *reject}
    columns = [place for place, name in enumerate(votes.classes) if name in kept]
    if not columns:
        raise UsageError(f"--classes {' '.join(wanted.classes)}: --soft-labels has none of these classes")
    adding = np.eye(len(votes.classes), dtype=np.float32)[:, columns]
    return Shares(votes.added(tuple(votes.classes[place] for place in columns), adding), source, silencing)


def _check_silencing(source: SoftLabels, names: Mapping[str, str | None], reject: Sequence[str]) -> None:
    """Raises UsageError if the votes lack a class to reject, it is renamed, or fewer than two classes are left."""
    if unknown := sorted(set(reject) - set(source.classes)):
        raise UsageError(
            f"--reject {' '.join(unknown)}: --soft-labels has no such class; known: {', '.join(source.classes)}"
        )
    if both := [name for name in reject if names.get(name)]:
        raise UsageError(f"--reject {both[0]}: --rename-classes renames it to {names[both[0]]}; drop one of the two")
    if len(set(source.classes) - set(reject)) < 2:
        raise UsageError("--reject leaves fewer than two classes of --soft-labels; reject fewer")


def answered(
    found: TrainingRows, rows: np.ndarray, wanted: Wanted, shares: Shares | None, *, learned: bool = True
) -> Labelled:
    """Returns the rows with a label that counts, or with votes if only votes are learned.

    Args:
        learned: False for the rows of --validation, which may lack classes.
    """
    labels: Labels
    if shares is not None and not wanted.is_blended:
        rows, labels = _voted(found, rows, shares.learned, wanted.reject)
    else:
        rows = _of_classes(found, rows, wanted.classes, learned=learned)
        if shares is not None:
            rows = _not_silenced(found, rows, shares)
        labels = named = found.labels[rows].tolist()
        if shares is not None:
            labels = _blended(found.ids[rows].tolist(), named, shares.learned, wanted.soft_share)
    digests = [digest.tobytes() for digest in found.digests[rows]]
    groups = _groups(digests, found.ids[rows].tolist(), wanted.group_by)
    return Labelled(Rows(found.features, rows), labels, groups, digests, Rows(found.ids, rows))


def _groups(digests: Sequence[bytes], ids: Sequence[str], group_by: str | None) -> np.ndarray:
    """Returns (n,) group numbers: copies share a group, and so do ids with the same match of `group_by`."""
    if group_by is None:
        return joined(digests)
    pattern = re.compile(group_by)
    return joined(digests, [group_key(pattern, image_id) for image_id in ids])


def group_key(pattern: re.Pattern[str], image_id: str) -> str:
    """Returns the key that an id is grouped by: the match, or its first group; without a match the id itself."""
    match = pattern.search(image_id)
    if match is None:
        return image_id
    return (match[1] if pattern.groups else match[0]) or ""


def _blended(ids: Sequence[str], labels: Sequence[str], votes: SoftLabels, share: float) -> Blend:
    """Returns labels blended with votes; reports how many images have no votes.

    Raises:
        UsageError: votes for a class that no label names, or for none of the images.
    """
    if strange := sorted(set(votes.classes) - set(labels)):
        raise UsageError(
            f"--soft-labels has classes that no label names: {', '.join(strange)}; give --rename-classes "
            f"{strange[0]}=CLASS for each, or {strange[0]}= to exclude it. Labels: {', '.join(sorted(set(labels)))}"
        )
    given = [votes.of(image_id) for image_id in ids]
    if all(row is None for row in given):
        raise UsageError(f"--soft-labels knows none of the images, whose ids are like {ids[0]}")
    if missing := sum(row is None for row in given):
        note(f"{missing:,} images without votes use only their label")
    nothing = np.zeros(len(votes.classes), np.float32)
    shares = np.stack([nothing if row is None else row for row in given]).astype(np.float32)
    return Blend(labels, shares, votes.classes, share)


def _not_silenced(found: TrainingRows, rows: np.ndarray, shares: Shares) -> np.ndarray:
    """Returns the rows that may be learned from; reports how many may not."""
    if not shares.reject or not len(rows):
        return rows
    kept = np.asarray([not shares.silences(image_id) for image_id in found.ids[rows].tolist()], bool)
    leading = " or ".join(shares.reject)
    if not kept.any():
        raise UsageError(f"--reject {' '.join(shares.reject)}: {leading} leads the votes of every image; reject fewer")
    if not kept.all():
        note(f"{int((~kept).sum()):,} images skipped because {leading} leads their votes")
    return np.asarray(rows[kept])


def _of_classes(found: TrainingRows, rows: np.ndarray, names: Sequence[str] | None, *, learned: bool) -> np.ndarray:
    """Returns the rows whose label is one of these names; all rows if no names are given.

    Raises:
        UsageError: a name is not a label of the training data, or the validation data has none of the names.
    """
    if not names:
        return rows
    known = set(found.labels[rows].tolist())
    unknown = sorted(set(names) - known)
    if learned and (copies := sorted(set(unknown) & set(found.labels.tolist()))):
        raise UsageError(
            f"--classes {' '.join(copies)}: every such image is also in --validation or --exclude-copies-of"
        )
    if unknown and (learned or len(unknown) == len(set(names))):
        where = "of --input" if learned else "of --validation"
        shown = ", ".join(sorted(known)[:20])
        raise UsageError(f"--classes {' '.join(unknown)}: no image {where} has that label; known: {shown}")
    return rows[np.isin(found.labels[rows], list(names))]


def _voted(
    found: TrainingRows, rows: np.ndarray, votes: SoftLabels, reject: tuple[str, ...]
) -> tuple[np.ndarray, Votes]:
    """Returns the rows that have votes, and the votes; reports how many have none."""
    given = [votes.of(image_id) for image_id in found.ids[rows].tolist()]
    kept = np.asarray([row is not None for row in given], bool)
    if not kept.any():
        raise UsageError(f"--soft-labels knows none of the images, whose ids are like {found.ids[rows[0]]}")
    if not kept.all():
        note(f"{int((~kept).sum()):,} images without votes skipped")
    shares = np.stack([row for row in given if row is not None]).astype(np.float32)
    return rows[kept], Votes(shares, votes.classes, reject)
