"""How good the labels are: the program as shipped, and published networks of others, on the same images in one script.

Ours is labelled by the program itself, with no setting changed but `faces.detector=none` (every image is a face), and
judged here, by scikit-learn, and again by the program's own `evaluate`: both must say the same. The others
(`peers_networks.py`) are called by their authors' preprocessing; their figures must be those of the README beside their
files. Their predictions and our features are kept in `--work`, so that a second time is quick.

Sets: FER2013's test part, whole and without the images whose bytes also stand in its training or validation part; the
validation part, on which ours was chosen and the others were, too; FER+'s majority on the test part; smiles, where only
P(happy) counts; webfaces, seven classes with noisy labels. None of the last two was trained on by us.

`--weights FILE --head DIR --ferplus-head DIR` measures another network than the bundled one.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import json
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measuring
import numpy as np
import peers_networks
from peers_metrics import Judged, YesOrNo, judge, yes_or_no
from peers_networks import CLASSES, PEERS, Peer, Stated

TEST, VAL, SMILES, WEBFACES = "test.tar", "val.tar.gz", "smiles.tar.gz", "webfaces.tar"
SETS = {TEST: "fer2013", VAL: "fer2013", SMILES: "smiles", WEBFACES: "expr"}  # archive: folder
OURS, OURS_FERPLUS = "**ours**", "**ours, FER+ head**"
BUNDLED_FERPLUS = measuring.ROOT / "models" / "weights" / "ferplus"
FERPLUS_NAMES = {"happiness": "happy", "sadness": "sad", "anger": "angry"}  # its words: FER2013's
CALIBRATION = 0.03  # the largest calibration error on FER2013's test part
AS_STATED = 0.001  # by how much a figure of the others may differ from the README beside them

Truth = dict[str, str]  # member: class


@dataclass(frozen=True)
class Said:
    """What a network says of the members of an archive.

    Attributes:
        classes: names of the columns, in FER2013's words.
        names: of the members, in the archive's order. probabilities: (members, classes).
    """

    classes: tuple[str, ...]
    names: tuple[str, ...]
    probabilities: np.ndarray

    def judged(self, truth: Truth) -> Judged:
        """Returns the figures over the members of `truth`; a class that the network does not know counts as wrong."""
        rows = [i for i, name in enumerate(self.names) if name in truth]
        known = {name: i for i, name in enumerate(self.classes)}
        y = np.array([known.get(truth[self.names[i]], len(known)) for i in rows])
        return judge(self.probabilities[rows], y)

    def smiles(self) -> YesOrNo:
        """Returns how well P(happy) tells members in `positive/` from the others."""
        happy = self.probabilities[:, self.classes.index("happy")]
        said = self.probabilities.argmax(axis=1) == self.classes.index("happy")
        return yes_or_no(happy, said, np.array([name.startswith("positive/") for name in self.names]))


Network = Mapping[str, Said]  # what one network says, by archive


# --- truths -----------------------------------------------------------------------------------------------------------


def by_folder(names: Iterable[str]) -> Truth:
    """Returns the class in each member's name."""
    return {name: name.split("/")[0] for name in names}


def without_copies(test: Path, others: Sequence[Path]) -> Truth:
    """Returns those members of the test part whose bytes stand in no other part, with their classes."""
    seen = {hashlib.sha256(data).digest() for _, data in measuring.members(*others)}
    return by_folder(name for name, data in measuring.members(test) if hashlib.sha256(data).digest() not in seen)


@dataclass(frozen=True)
class Votes:
    """FER+'s majority of the images it is known of, and how many were left out, by reason."""

    truth: Truth
    left_out: Counter[str]

    @property
    def reported(self) -> str:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(self.left_out.items()))
        return f"{len(self.truth):,} images; left out: {reasons or 'none'}"


def majority(table: Path, names: Iterable[str], classes: Sequence[str], *, as_authors: bool = False) -> Votes:
    """Returns the majority of FER+'s ten votes, for members where it is one of `classes`.

    Args:
        as_authors: True for the rule of FER+'s authors: single votes are dropped, and the majority is more than half
            of what is left; False for the plain one: more votes than any other column, of all ten.
    """
    wanted, truth, left_out = set(names), {}, Counter[str]()
    with open(table, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            member = row.pop("member")
            if member not in wanted:
                continue
            votes = {FERPLUS_NAMES.get(name, name): int(count) for name, count in row.items()}
            leader = _leader(votes, as_authors)
            if leader in classes:
                truth[member] = leader
            else:
                left_out["no majority" if leader is None else f"{leader} leads"] += 1
    return Votes(truth, left_out)


def _leader(votes: Mapping[str, int], as_authors: bool) -> str | None:
    if as_authors:
        votes = {name: count if count > 1 else 0 for name, count in votes.items()}
    most = max(votes.values())
    leaders = [name for name, count in votes.items() if count == most]
    if len(leaders) > 1 or (as_authors and most <= sum(votes.values()) / 2):
        return None
    return leaders[0]


# --- networks ---------------------------------------------------------------------------------------------------------


def archives(options: Namespace, place: Path) -> dict[str, Path]:
    """Returns the archives by name; with `--small` the first tenth of each."""
    sources = {name: options.data / folder / name for name, folder in SETS.items()}
    measuring.needed(*sources.values())
    if not options.small:
        return sources
    some = place / "some"
    return {
        name: measuring.write_tar(some / f"{path.name.split('.')[0]}.tar", _tenth(path))
        for name, path in sources.items()
    }


def _tenth(path: Path) -> list[tuple[str, bytes]]:
    return list(measuring.members(path))[::10]


def ours(sources: Mapping[str, Path], place: Path, settings: Sequence[str], head: Path | None, name: str) -> Network:
    """Labels all archives with the program; returns what it says."""
    measuring.progress(f"labelling: {name}")
    flags = () if head is None else ("--head", str(head))
    run = measuring.label(list(sources.values()), place / name, *flags, settings=settings, cache=place / "cache")
    classes = run.record["head"]["classes"]
    rows = {row["image_id"]: [row[f"p_{c}"] for c in classes] for row in measuring.rows(run.output / "predictions")}
    words = tuple(FERPLUS_NAMES.get(word, word) for word in classes)
    found = {}
    for archive, path in sources.items():
        names = tuple(member for member, _ in measuring.members(path))
        missing = [member for member in names if f"{path.name}/{member}" not in rows]
        if missing:
            sys.exit(f"{len(missing)} images of {archive} got no label, the first is {missing[0]}")
        found[archive] = Said(words, names, np.array([rows[f"{path.name}/{member}"] for member in names]))
    return found


def theirs(peer: Peer, folder: Path, sources: Mapping[str, Path], place: Path) -> Network:
    """Returns what a network of others says, kept from an earlier time where files and archives are the same."""
    digest = hashlib.sha256(f"{peer} {peers_networks.REVISION}".encode())
    for path in [*(folder / name for name in peer.files), *sources.values()]:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    kept = place / "peers" / f"{peer.name}-{digest.hexdigest()[:16]}.npz"
    if not kept.exists():
        measuring.progress(f"predicting: {peer.name}")
        kept.parent.mkdir(exist_ok=True)
        script = Path(peers_networks.__file__)
        measuring.start(script, folder, peer.name, kept, *sources.values()).wait().done()
    with np.load(kept) as stored:
        return {
            name: Said(CLASSES, tuple(stored[f"{path.name}/names"]), stored[f"{path.name}/probabilities"])
            for name, path in sources.items()
        }


def evaluated(test: Path, place: Path, *flags: str, settings: Sequence[str], name: str) -> dict[str, Any]:
    """Returns the figures of the program's own `evaluate`; features come from the cache."""
    measuring.progress(f"evaluate: {name}")
    words = ["--runner=DirectRunner", "--quiet", "--input", test, "--output", place / name, "--cache", place / "cache"]
    run = measuring.start("-m", "pipeline", "evaluate", *words, "--set", *settings, *flags, output=place / name)
    run.wait().done()
    return json.loads((place / name / "metrics.json").read_text(encoding="utf-8"))["metrics"]


# --- all of it --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Figures:
    """The figures of one network on all sets that are comparable between all networks."""

    test: Judged
    alone: Judged
    val: Judged
    ferplus: Judged
    smiles: YesOrNo
    webfaces: Judged


@dataclass(frozen=True)
class Truths:
    """True classes: of the test part without copies, and FER+'s majority where it is one of the seven."""

    alone: Truth
    ferplus: Votes


def figures(network: Network, truths: Truths) -> Figures:
    """Returns the figures of a network."""
    plain = {name: network[name].judged(by_folder(network[name].names)) for name in (TEST, VAL, WEBFACES)}
    test = network[TEST]
    return Figures(
        plain[TEST],
        test.judged(truths.alone),
        plain[VAL],
        test.judged(truths.ferplus.truth),
        network[SMILES].smiles(),
        plain[WEBFACES],
    )


def show_all(found: Mapping[str, Figures], truths: Truths) -> None:
    """Prints a table a set."""
    first = next(iter(found.values()))
    titles = {
        "test": f"FER2013 test, {first.test.images:,} images",
        "alone": f"FER2013 test without copies of training and validation images, {first.alone.images:,} images",
        "val": f"FER2013 validation, {first.val.images:,} images (ours and XCEPTION were chosen here)",
        "ferplus": f"FER+ majority on the test part, the seven classes: {truths.ferplus.reported}",
        "webfaces": f"webfaces, {first.webfaces.images:,} images",
    }
    head = ["network", "accuracy", "95 % interval", "macro F1", "calibration error"]
    for field, title in titles.items():
        measuring.show(title, head, [[name, *_line(getattr(of, field))] for name, of in found.items()])
    seven = {name: of.test.by_class for name, of in found.items() if name != OURS_FERPLUS}
    lines = [[name, *(None if f1 is None else f"{f1:.3f}" for f1 in by_class)] for name, by_class in seven.items()]
    measuring.show("F1 by class, FER2013 test", ["network", *CLASSES], lines)
    head = [
        "network",
        "AUC of P(happy)",
        "95 % interval",
        "accuracy, arg-max is happy",
        "best threshold",
        "at P(happy)",
    ]
    measuring.show("smiles", head, [[name, *_smiles_line(of.smiles)] for name, of in found.items()])


def _line(one: Judged) -> list[str]:
    return [_four(one.accuracy), one.interval, _four(one.macro_f1), _four(one.calibration_error)]


def _smiles_line(one: YesOrNo) -> list[str]:
    rates = [_four(one.at_argmax), _four(one.at_best), f"{one.threshold:.2f}"]
    return [_four(one.auc), f"{one.low:.3f} … {one.high:.3f}", *rates]


def _four(value: float) -> str:
    return f"{value:.4f}"


def own_protocol(said: Said, table: Path, alone: Truth) -> dict[str, Judged]:
    """Prints the FER+ head by FER+'s own classes, with two rules for what a majority is; returns the figures."""
    found, lines = {}, []
    rules = {"more votes than any other": False, "as FER+'s authors: without single votes, more than half": True}
    for rule, as_authors in rules.items():
        votes = majority(table, said.names, said.classes, as_authors=as_authors)
        fresh = said.judged({name: label for name, label in votes.truth.items() if name in alone})
        one = found[rule] = said.judged(votes.truth)
        lines.append([rule, votes.reported, *_line(one), f"{_four(fresh.accuracy)} ({fresh.images:,})"])
    head = ["majority", "images", "accuracy", "95 % interval", "macro F1", "calibration error", "without copies"]
    measuring.show(f"FER+ by its own {len(said.classes)} classes, FER2013's test part, our FER+ head", head, lines)
    return found


@dataclass(frozen=True)
class Compared:
    """A figure of all networks: what it is called, how it is taken, and what ours must reach."""

    what: str
    of: Callable[[Figures], float]
    target: float


COMPARED = (
    Compared("FER2013 test, accuracy", lambda found: found.test.accuracy, 0.70),
    Compared("FER2013 test without copies, accuracy", lambda found: found.alone.accuracy, 0.68),
    Compared("FER2013 test, macro F1", lambda found: found.test.macro_f1, 0.68),
    Compared("smiles, AUC of P(happy)", lambda found: found.smiles.auc, 0.97),
    Compared("webfaces, accuracy", lambda found: found.webfaces.accuracy, 0.56),
)
FERPLUS = Compared("FER+ majority on the test part, accuracy", lambda found: found.ferplus.accuracy, 0.83)


def claims(found: Mapping[str, Figures], ferplus: Judged) -> list[tuple[str, bool]]:
    """Returns what is claimed of ours: that it reaches the targets, and beats the best of the others on each set.

    Args:
        ferplus: ours against FER+'s majority: of the FER+ head on its own classes where there is one. The others are
            compared on the seven classes that all know, with that head, too.
    """
    mine = found[OURS]
    made = []
    for one in (*COMPARED, FERPLUS):
        value = ferplus.accuracy if one is FERPLUS else one.of(mine)
        made.append((f"{one.what}: {value:.4f}, target {one.target:.2f}", value >= one.target))
    error = mine.test.calibration_error
    made.append((f"FER2013 test, calibration error: {error:.4f}, at most {CALIBRATION:.2f}", error <= CALIBRATION))
    for one in (*COMPARED, FERPLUS):
        value = one.of(found.get(OURS_FERPLUS, mine) if one is FERPLUS else mine)
        best, name = max((one.of(found[peer.name]), peer.name) for peer in PEERS)
        made.append((f"{one.what}: ours {value:.4f}, the best of the others {best:.4f} ({name})", value > best))
    least, name = min((found[peer.name].test.calibration_error, peer.name) for peer in PEERS)
    text = f"FER2013 test, calibration error: ours {error:.4f}, the least of the others {least:.4f} ({name})"
    return [*made, (text, error < least)]


def as_stated(found: Mapping[str, Figures]) -> tuple[str, bool]:
    """Returns the claim that the others' figures are those of the README beside them."""
    differences = [
        (abs(figure - stated), f"{peer.name}, {what}")
        for peer in PEERS
        for what, figure, stated in _beside_stated(found[peer.name], peer.stated)
    ]
    most, where = max(differences)
    text = f"the others' {len(differences)} figures are those of their README (furthest by {most:.5f}: {where})"
    return text, most <= AS_STATED


def _beside_stated(found: Figures, stated: Stated) -> list[tuple[str, float, float]]:
    return [
        ("test", found.test.accuracy, stated.test[0]),
        ("test, macro F1", found.test.macro_f1, stated.test[1]),
        ("without copies", found.alone.accuracy, stated.alone[0]),
        ("without copies, macro F1", found.alone.macro_f1, stated.alone[1]),
        ("validation", found.val.accuracy, stated.val),
        ("FER+", found.ferplus.accuracy, stated.ferplus),
        ("webfaces", found.webfaces.accuracy, stated.webfaces[0]),
        ("webfaces, macro F1", found.webfaces.macro_f1, stated.webfaces[1]),
        ("smiles, AUC", found.smiles.auc, stated.smiles[0]),
        ("smiles, arg-max", found.smiles.at_argmax, stated.smiles[1]),
        ("smiles, best threshold", found.smiles.at_best, stated.smiles[2]),
    ]


def agrees(mine: Judged, judged_by_program: Mapping[str, Any], what: str) -> tuple[str, bool]:
    """Returns the claim that the program's `evaluate` finds the same figures."""
    reported = judged_by_program
    pairs = (
        (mine.accuracy, reported["accuracy"]["value"]),
        (mine.macro_f1, reported["macro_f1"]["value"]),
        (mine.calibration_error, reported["expected_calibration_error"]),
    )
    same = reported["rows"] == mine.images and all(abs(a - b) < 1e-6 for a, b in pairs)
    return f"evaluate finds the same accuracy, macro F1 and calibration error: {what}", same


def run(options: Namespace, place: Path) -> int:
    """Measures, prints, and returns the exit status."""
    sources = archives(options, place)
    train, votes = options.data / "fer2013" / "train.tar.gz", options.data / "fer2013" / "ferplus.csv"
    folder = options.data / "peers"
    measuring.needed(train, votes, *(folder / name for peer in PEERS for name in peer.files))
    settings = ["faces.detector=none"]
    if options.weights is not None:
        settings.append(f"features.weights={options.weights.resolve()}")
    networks = {OURS: ours(sources, place, settings, options.head, "ours")}
    if options.ferplus_head is not None:
        networks[OURS_FERPLUS] = ours(sources, place, settings, options.ferplus_head, "ours_ferplus")
    for peer in PEERS:
        networks[peer.name] = theirs(peer, folder, sources, place)
    others = [train, options.data / "fer2013" / VAL]
    names = networks[OURS][TEST].names
    truths = Truths(without_copies(sources[TEST], others), majority(votes, names, CLASSES))
    found = {name: figures(network, truths) for name, network in networks.items()}
    show_all(found, truths)
    judged = found[OURS].ferplus
    if OURS_FERPLUS in networks:
        judged = next(iter(own_protocol(networks[OURS_FERPLUS][TEST], votes, truths.alone).values()))
    made = claims(found, judged)
    if not options.small:
        made.append(as_stated(found))
    head = () if options.head is None else ("--head", str(options.head))
    whole = evaluated(sources[TEST], place, *head, settings=settings, name="whole")
    excluded = ("--exclude-copies-of", *map(str, others), *head)
    alone = evaluated(sources[TEST], place, *excluded, settings=settings, name="alone")
    made += [agrees(found[OURS].test, whole, "test"), agrees(found[OURS].alone, alone, "without copies")]
    if OURS_FERPLUS in networks:
        flags = (
            "--head",
            str(options.ferplus_head),
            "--soft-labels",
            str(votes),
            "--rename-classes",
            "unknown=",
            "NF=",
        )
        voted = evaluated(sources[TEST], place, *flags, settings=settings, name="voted")
        made.append(agrees(judged, voted, "FER+ majority, eight classes"))
    return measuring.verdict(made)


def main(words: Sequence[str]) -> int:
    made = measuring.parser(__doc__ or "")
    made.add_argument("--weights", type=Path, help="another network than the bundled one; needs a head of its own")
    made.add_argument("--head", type=Path, help="another head than the bundled one")
    made.add_argument(
        "--ferplus-head",
        type=Path,
        default=BUNDLED_FERPLUS if BUNDLED_FERPLUS.is_dir() else None,
        help="a head with FER+'s eight classes on the same network (default: %(default)s)",
    )
    options = made.parse_args(words)
    if importlib.util.find_spec("tf_keras") is None:
        sys.exit("skipped: three of the others need tf_keras: pip install --no-deps tf_keras of TensorFlow's version")
    with measuring.workplace(options, keep=("peers", "cache")) as place:
        return run(options, place)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
