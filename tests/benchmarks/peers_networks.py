"""Published expression networks of others, for comparison: loaded from a folder of their files, never copied.

What each needs (input, preprocessing, order of its outputs) is in the README beside the files. Three are whole Keras 2
models, which the legacy package tf_keras loads; the fourth is built here, layer by layer, from its README's description
and its authors' weights.

    python tests/benchmarks/peers_networks.py FOLDER NAME OUT.npz ARCHIVE...

writes for each archive, in turn, (members, 7) float32 probabilities, classes in alphabetical order, and the members'
names. Run by labels.py, a process a network.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measuring
import numpy as np

CLASSES = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
REVISION = 1  # part of the name of kept predictions: raise it when anything here changes them
BATCH = 128
MEAN = (122.782, 117.001, 104.298)  # face-api's, RGB

Network = Callable[[np.ndarray], np.ndarray]  # (n, side, side) uint8 -> (n, 7) probabilities, in the network's order


@dataclass(frozen=True)
class Stated:
    """What the README beside the networks has measured; accuracy and macro F1 where there are two."""

    test: tuple[float, float]
    alone: tuple[float, float]
    val: float
    ferplus: float
    webfaces: tuple[float, float]
    smiles: tuple[float, float, float]  # AUC, accuracy at the arg-max, at the best threshold


@dataclass(frozen=True)
class Peer:
    """A network of others.

    Attributes:
        name: for people.
        files: in the folder of networks; the first one holds the weights.
        side: of its input, pixels.
        order: of its outputs, in our names.
        stated: what the README says of it.
    """

    name: str
    files: tuple[str, ...]
    side: int
    order: tuple[str, ...]
    stated: Stated


XCEPTION = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
PEERS = (
    Peer(
        "mini_XCEPTION.102",
        ("fer2013_mini_XCEPTION.102-0.66.hdf5",),
        64,
        XCEPTION,
        Stated((0.6548, 0.6357), (0.6391, 0.6018), 0.6553, 0.6510, (0.4635, 0.3741), (0.9400, 0.8572, 0.8632)),
    ),
    Peer(
        "mini_XCEPTION.107",
        ("fer2013_mini_XCEPTION.107-0.66.hdf5",),
        64,
        XCEPTION,
        Stated((0.6598, 0.6458), (0.6455, 0.6153), 0.6506, 0.6481, (0.4435, 0.3627), (0.9384, 0.8578, 0.8622)),
    ),
    Peer(
        "big_XCEPTION.54",
        ("fer2013_big_XCEPTION.54-0.66.hdf5",),
        64,
        XCEPTION,
        Stated((0.6684, 0.6662), (0.6464, 0.6288), 0.6562, 0.6424, (0.4480, 0.3553), (0.9346, 0.8572, 0.8632)),
    ),
    Peer(
        "face-api",
        ("face_expression_model-shard1", "face_expression_model-weights_manifest.json"),
        112,
        ("neutral", "happy", "sad", "angry", "fear", "disgust", "surprise"),
        Stated((0.5879, 0.5335), (0.5753, 0.5080), 0.5801, 0.6621, (0.5205, 0.4384), (0.9038, 0.8203, 0.8317)),
    ),
)


def load(peer: Peer, folder: Path) -> Network:
    """Returns the network, ready to be called."""
    if peer.files[0].endswith(".hdf5"):
        return _keras_2(folder / peer.files[0])
    return _face_api(*(folder / name for name in peer.files))


def _keras_2(path: Path) -> Network:
    import tf_keras

    model = tf_keras.models.load_model(path, compile=False)
    return lambda grey: np.asarray(model.predict_on_batch(grey[..., None] / np.float32(127.5) - 1))


def _face_api(shard: Path, manifest: Path) -> Network:
    """Four dense blocks of separable convolutions, the mean of the 7×7 map, one dense layer."""
    import tensorflow as tf

    weights = _dequantised(shard, manifest)

    def separable(x: Any, name: str, stride: int) -> Any:
        depthwise, pointwise = weights[f"{name}/depthwise_filter"], weights[f"{name}/pointwise_filter"]
        strides = [1, stride, stride, 1]
        return tf.nn.separable_conv2d(x, depthwise, pointwise, strides, "SAME") + weights[f"{name}/bias"]

    def block(x: Any, name: str) -> Any:
        if f"{name}/conv0/filters" in weights:  # the first block begins with a plain convolution
            out = tf.nn.conv2d(x, weights[f"{name}/conv0/filters"], 2, "SAME") + weights[f"{name}/conv0/bias"]
        else:
            out = separable(x, f"{name}/conv0", 2)
        summed = out = tf.nn.relu(out)
        for layer in (1, 2, 3):
            summed = summed + separable(out, f"{name}/conv{layer}", 1)
            out = tf.nn.relu(summed)
        return out

    @tf.function
    def network(grey: Any) -> Any:
        x = (tf.cast(grey, tf.float32)[..., None] - tf.constant(MEAN)) / 255.0
        for number in range(4):
            x = block(x, f"dense{number}")
        return tf.nn.softmax(tf.reduce_mean(x, axis=(1, 2)) @ weights["fc/weights"] + weights["fc/bias"])

    return lambda grey: network(tf.constant(grey)).numpy()


def _dequantised(shard: Path, manifest: Path) -> dict[str, np.ndarray]:
    """Returns the weights by name, float32: bytes lie in the manifest's order, value = byte × scale + min."""
    data, at, weights = shard.read_bytes(), 0, {}
    for entry in json.loads(manifest.read_text())[0]["weights"]:
        count, quantised = int(np.prod(entry["shape"])), entry.get("quantization")
        stored = np.frombuffer(data, np.uint8 if quantised else np.float32, count, at)
        at += stored.nbytes
        values = stored * np.float32(quantised["scale"]) + np.float32(quantised["min"]) if quantised else stored
        weights[entry["name"]] = values.astype(np.float32).reshape(entry["shape"])
    if at != len(data):
        raise ValueError(f"{shard} has {len(data)} bytes, its manifest names {at}")
    return weights


def predict(network: Network, peer: Peer, archive: Path) -> tuple[list[str], np.ndarray]:
    """Returns the members' names, and (members, 7) probabilities, columns as `CLASSES`."""
    columns = [peer.order.index(name) for name in CLASSES]
    names, found = [], []
    for listed, batch in _batches(archive, peer.side):
        names += listed
        found.append(network(batch)[: len(listed), columns])
    return names, np.concatenate(found).astype(np.float32)


def _batches(archive: Path, side: int) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yields names and (BATCH, side, side) grey pixels, the last batch padded: one shape is compiled once."""
    import cv2

    names: list[str] = []
    batch = np.zeros((BATCH, side, side), np.uint8)
    for name, data in measuring.members(archive):
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
        batch[len(names)] = cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR)
        names.append(name)
        if len(names) == BATCH:
            yield names, batch
            names, batch = [], np.zeros_like(batch)
    if names:
        yield names, batch


def main(words: Sequence[str]) -> None:
    folder, name, out, *archives = words
    peer = next(peer for peer in PEERS if peer.name == name)
    network = load(peer, Path(folder))
    arrays: dict[str, np.ndarray] = {}
    for archive in map(Path, archives):
        names, arrays[f"{archive.name}/probabilities"] = predict(network, peer, archive)
        arrays[f"{archive.name}/names"] = np.array(names)
    unfinished = Path(out).with_suffix(".unfinished.npz")
    np.savez(unfinished, **arrays)
    unfinished.replace(out)


if __name__ == "__main__":
    main(sys.argv[1:])
