"""Runs every recipe by the command in its own header, on the data sets: that they fit each other and the program.

Each is shortened to one epoch of few images (`--images`; 0 takes all), so nothing here says how good a recipe is. A
recipe that starts from another one's weights follows it. Ends with 1 if one fails.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import tarfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import measuring

RECIPES = measuring.ROOT / "configs" / "recipes"
FIRST = ("face_vgg.yaml",)  # face_vgg_restart.yaml starts from its weights
PLACES = {  # what the commands call the data, and where it lies
    "fer2013/": "fer2013/",
    "oasis/": "oasis/",
    "cats_dogs/": "cats_dogs/",
    "vgg16/vgg16_notop_f16.npz": "vgg16/vgg16_notop_f16.npz",
    "vgg16.npz": "vgg16/vgg16_notop_f16.npz",
    "imagenet": "nets/mobilenet_v1_1.0_224_f16.npz",
    "labelled/": "fer2013/val.tar.gz",
}


def commands() -> Iterator[tuple[str, list[str]]]:
    """Yields each recipe's name and the words of its command after `python` or `sh`."""
    for path in sorted(RECIPES.glob("*.yaml"), key=lambda path: (path.name not in FIRST, path.name)):
        yield path.name, command_of(path)
    for name, recipe in (("bundled.sh", []), ("competition.sh", ["configs/recipes/competition_simple.yaml"])):
        yield name, [f"configs/recipes/{name}", "fer2013", f"out/{name}", *recipe]


def command_of(recipe: Path) -> list[str]:
    """Returns the words of the first command in the comments of a recipe, without `python`."""
    text = "\n".join(line.lstrip("# ") for line in recipe.read_text().splitlines() if line.startswith("#"))
    found = re.search(r"python (-m pipeline (?:.*\\\n)*.*)", text)
    if found is None:
        sys.exit(f"{recipe} states no command")
    return shlex.split(found[1].replace("\\\n", " "))


def placed(word: str, data: Path, work: Path) -> str:
    """Returns a word of a command with the places of this machine."""
    name, equals, value = word.rpartition("=")
    if value.startswith("out/"):
        return f"{name}{equals}{work / value}"
    if value == "labels.csv":
        return f"{name}{equals}{work / 'labels.csv'}"
    for said, place in PLACES.items():
        if value == said or (said.endswith("/") and value.startswith(said) and said != "labelled/"):
            return f"{name}{equals}{data / (place + value.removeprefix(said))}"
    return str(data / "fer2013") if word == "fer2013" else word


def fewer(data: Path, work: Path, images: int) -> Path:
    """Returns a folder like that of the data, with the first images of each archive, every class among them."""
    made = work / "data"
    for folder in ("fer2013", "oasis", "cats_dogs"):
        for path in (data / folder).iterdir():
            to = made / folder / path.name.removesuffix(".gz")
            to.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".csv":
                shutil.copyfile(path, to)
            elif tarfile.is_tarfile(path):
                measuring.write_tar(to, islice(mixed(path), images))
                to.rename(to.with_name(path.name))  # a tar without gzip: readers look at the bytes, not at the name
    for folder in ("vgg16", "nets"):
        (made / folder).symlink_to(data / folder)
    return made


def mixed(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Yields the images of an archive, its folders in turn."""
    folders: dict[str, list[tuple[str, bytes]]] = {}
    for name, content in measuring.members(archive):
        folders.setdefault(name.rpartition("/")[0], []).append((name, content))
    for place in range(max(map(len, folders.values()))):
        yield from (images[place] for images in folders.values() if place < len(images))


def labels_of_nine(data: Path, to: Path) -> None:
    """Writes a class for each image of FER+, as competition.sh does: that of most votes."""
    import csv

    with (data / "fer2013" / "ferplus.csv").open(newline="") as votes, to.open("w", newline="") as labels:
        rows, writer = csv.reader(votes), csv.writer(labels)
        classes = next(rows)[1:]
        writer.writerow(["image", "emotion"])
        for image, *counts in rows:
            leading = classes[max(range(len(classes)), key=lambda place: int(counts[place]))]
            if leading != "NF":
                writer.writerow([image, leading])


def main() -> None:
    """Runs all, and prints a table."""
    parser = measuring.parser(__doc__ or "")
    parser.add_argument("--images", type=int, default=420, help="of each archive (default: %(default)s); 0: all")
    parser.add_argument("--recipes", nargs="*", help="their names; default: all")
    options = parser.parse_args()
    options.images = 240 if options.small else options.images  # more than a batch of 128
    measuring.needed(*(options.data / folder for folder in ("fer2013", "oasis", "cats_dogs", "vgg16", "nets")))
    failed = 0
    with measuring.workplace(options) as work:
        data = fewer(options.data, work, options.images) if options.images else options.data
        labels_of_nine(data, work / "labels.csv")
        print("| recipe | status | CPU-seconds | last line |\n|---|---|---|---|", flush=True)
        for name, words in commands():
            if options.recipes and name not in options.recipes:
                continue
            command = [placed(word, data, work) for word in words]
            if "train-backbone" in command or command[0].endswith(".sh"):
                command += ["--epochs", "1"]
            elif "head_s" in name:
                command += ["mlp.epochs=1"] if "--set" in command else ["--set", "mlp.epochs=1", "faces.detector=none"]
            ran = (measuring.shell if command[0].endswith(".sh") else measuring.start)(*command).wait()
            failed += ran.status != 0
            last = (ran.out if ran.status == 0 else ran.err).strip().rpartition("\n")[2]
            last = last.replace(str(work), "WORK").replace(str(options.data), "DATA").replace("|", "/")
            print(f"| {name} | {ran.status} | {ran.cpu_s:.0f} | {last[:160]} |", flush=True)
    print(f"\n{measuring.machine()}")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
