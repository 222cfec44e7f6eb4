"""Checks if a weights file fits a network, from names and shapes only, before anything is loaded or computed.

It refuses only files that Keras would certainly refuse. A layout that is unknown here passes and is checked when it is
loaded (`features.py`). Not here: loading.
"""

from __future__ import annotations

import errno
import os
import zipfile

from models.backbones.backbone import BackboneError, Misfit
from models.backbones.registry import backbone

_UNREADABLE = (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile)
_OF_CONTENT = (None, errno.EINVAL, errno.EISDIR)  # OSError numbers with which readers report bad content


def check_weights_file(name: str, weights: str) -> None:
    """Raises BackboneError unless the file may hold weights of the network.

    Args:
        name: of the backbone.
        weights: `bundled`, `imagenet`, `random` (there is no file) or a path.

    Raises:
        OSError: the storage fails, so the file is not judged; one line with its path.
    """
    if weights == "random":
        return
    kind = backbone(name)
    path = kind.weights_path(weights)
    try:
        path.open("rb").close()  # gives a clearer error than h5py and zipfile
        kind.check_file(path)
    except (Misfit, *_UNREADABLE) as error:
        if isinstance(error, OSError) and error.errno not in _OF_CONTENT:
            raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from error
        fault = (str(error).splitlines() or [type(error).__name__])[0]
        raise BackboneError(
            f"{path} does not hold weights of {name}: {fault}; set features.weights to another file, "
            "or features.backbone to the network of this one"
        ) from error
