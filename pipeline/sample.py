"""A handful of photos to try the program on: those that ship inside the scikit-image wheel, nothing is downloaded.

`python -m pipeline.sample DIR` copies them to DIR; a second call leaves them alone.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from pipeline.errors import PipelineError, StoppedError, UsageError
from transforms.formats.publish import publish_bytes

PHOTOS = (
    "astronaut.png",  # a portrait
    "camera.png",  # a man in profile, grey
    "chelsea.png",  # a cat: a face, but none of ours
    "coffee.png",
    "motorcycle_left.png",
    "rocket.jpg",
)


def write_sample(folder: Path) -> list[Path]:
    """Returns the photos in `folder`, copied there byte for byte unless they are there already.

    Raises:
        StoppedError: scikit-image is not installed, or this version of it ships other photos.
    """
    source = _photo_folder()
    missing = [name for name in PHOTOS if not (source / name).is_file()]
    if missing:
        raise StoppedError(f"{source} lacks {', '.join(missing)}; install the scikit-image that constraints.txt names")
    folder.mkdir(parents=True, exist_ok=True)
    return [_copy(source / name, folder / name) for name in PHOTOS]


def _photo_folder() -> Path:
    """Returns where scikit-image keeps its photos, without importing it."""
    found = importlib.util.find_spec("skimage")
    if found is None or found.origin is None:
        raise StoppedError("the sample comes with scikit-image, which is not installed; install the extra 'sample'")
    return Path(found.origin).parent / "data"


def _copy(source: Path, target: Path) -> Path:
    if not target.is_file() or target.read_bytes() != source.read_bytes():
        publish_bytes(target, source.read_bytes())
    return target


def main(arguments: list[str]) -> int:
    """Writes the sample to the folder named and returns the exit status."""
    try:
        if len(arguments) != 1 or arguments[0].startswith("-"):
            raise UsageError("usage: python -m pipeline.sample DIR")
        write_sample(Path(arguments[0]))
    except (PipelineError, OSError) as error:
        print(f"pipeline: error: {error}", file=sys.stderr)
        return getattr(error, "exit_status", StoppedError.exit_status)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
