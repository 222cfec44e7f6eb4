"""The runtime of those who choose none: Keras's backend, read without importing Keras."""

from __future__ import annotations

import json
import os
from pathlib import Path


def default_runtime() -> str:
    """Returns `KERAS_BACKEND`, else the backend of Keras's own `keras.json`, else `tensorflow`."""
    if os.environ.get("KERAS_BACKEND"):  # Keras ignores an empty one
        return os.environ["KERAS_BACKEND"]
    home = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "keras.json"
    try:
        return str(json.loads(home.read_text()).get("backend", "tensorflow"))
    except (OSError, ValueError):
        return "tensorflow"
