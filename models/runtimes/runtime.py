"""The interface of all runtimes: what executes a network."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from models.backbones.backbone import BackboneError
from models.runtimes.feature_settings import FeatureSettings

# (batch, h, w, c) uint8 crops -> (batch, d) float32 features, or what `np.asarray` waits for and turns into them
Call = Callable[[np.ndarray], Any]
DISTRIBUTION = "facelabel-pipeline"


class RuntimeUnavailable(BackboneError):
    """A runtime cannot compute with these settings here; the message names the setting and the cure."""


class Runtime(ABC):
    """Compiles feature extractors. Objects have no state, so that a name in the settings says it all.

    Attributes:
        name: its name in `features.runtime`.
        package: the package that it imports.
        extra: the extra of this program that installs the package; "" for one that is always there.
        precisions: values of `features.precision` that it computes in.
        smallest_batch: crops in one call from which the features of a crop have the same bits, whatever the batch.
        concurrent: True if `FeatureSettings.at_once` calls may run at the same time.
    """

    name: str
    package: str
    extra: str = ""
    precisions: tuple[str, ...] = ("float32", "bfloat16")
    smallest_batch: int = 8  # below it oneDNN picks other kernels
    concurrent: bool = False

    def check(self, settings: FeatureSettings) -> None:
        """Checks that the runtime is installed and takes these settings, without importing it.

        Raises:
            RuntimeUnavailable: it is not, or does not.
        """
        if settings.precision not in self.precisions:
            raise RuntimeUnavailable(
                f"features.precision={settings.precision} is not one of {', '.join(self.precisions)}, "
                f"which features.runtime={self.name} computes in"
            )
        self.check_installed()

    def check_installed(self) -> None:
        """Raises RuntimeUnavailable if the runtime's package is not installed; does not import it."""
        if importlib.util.find_spec(self.package) is None:
            raise RuntimeUnavailable(self._missing("is not installed"))

    def _missing(self, fault: str) -> str:
        install = f"{DISTRIBUTION}[{self.extra}]" if self.extra else DISTRIBUTION
        return (
            f"features.runtime={self.name}: the package {self.package} {fault}; "
            f"pip install '{install}', or choose another runtime"
        )

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Turns what goes wrong while a package is imported into one line.

        Raises:
            RuntimeUnavailable: it cannot be imported.
        """
        try:
            yield
        except ImportError as error:
            fault = (str(error).splitlines() or [type(error).__name__])[0]
            raise RuntimeUnavailable(self._missing(f"cannot be loaded ({fault})")) from error

    def describe(self) -> dict[str, Any]:
        """Returns what enters the cache key: the name, and whatever else of the runtime can change features."""
        return {"backend": self.name}

    def claim(self) -> None:  # noqa: B027 - most runtimes have nothing to claim
        """Prepares a process for this runtime before anything imports Keras; cheap."""

    @abstractmethod
    def start(self) -> None:
        """Imports the runtime.

        Raises:
            RuntimeUnavailable: it cannot be imported, or the process already computes on another one of Keras's.
        """

    @abstractmethod
    def compile(self, settings: FeatureSettings, shape: tuple[int, ...]) -> Call:
        """Returns the compiled extractor for one shape of input; call `start` first.

        Args:
            shape: (batch, height, width, channels) of the uint8 crops.

        Raises:
            BackboneError: the network cannot be built, or the weights are missing or of another network.
        """

    @abstractmethod
    def devices(self) -> list[str]:
        """Returns the accelerator, or else the CPU, that this process computes on."""

    def has_accelerator(self) -> bool:
        """True if this process computes on a GPU or another accelerator; call `start` first."""
        return False
