"""The shapes of the cascade's six networks: as the source and its paper give them, and those that ship."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from models.detectors.cascade.calibration import CLASSES

SIDES = (12, 24, 48)  # pixels: what the three levels look at
STRIDES = (2, 4, 8)  # pixels between the first level's windows that there is a graph for
SCALE, OFFSET = 1 / 64.0, -2.0  # of the pixels before the first convolution: 0 to 255 becomes -2 to 2


@dataclass(frozen=True, slots=True)
class Convolution:
    """A convolution without padding, relu, and a max-pool.

    Attributes:
        channels: that come out.
        kernel: pixels of its side.
        pool: pixels of the pool's side; 0 for none.
        stride: of the pool.
        step: pixels by which the convolution itself moves.
    """

    channels: int
    kernel: int
    pool: int = 0
    stride: int = 2
    step: int = 1


@dataclass(frozen=True, slots=True)
class Inception:
    """Three branches side by side, each seeing the same map, and a padded max-pool of 3x3 and stride 2.

    Attributes:
        narrow: channels of the 1x1 branch.
        middle: channels of the 1x1 and then the 3x3 convolution.
        wide: channels of the 1x1 and then the 5x5 convolution.
    """

    narrow: int
    middle: tuple[int, int]
    wide: tuple[int, int]

    @property
    def channels(self) -> int:
        """Channels that come out."""
        return self.narrow + self.middle[1] + self.wide[1]

    def branches(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """Returns (channels, kernel) of each convolution of each branch."""
        return ((self.narrow, 1),), ((self.middle[0], 1), (self.middle[1], 3)), ((self.wide[0], 1), (self.wide[1], 5))


@dataclass(frozen=True, slots=True)
class NetworkShape:
    """A network that looks at square windows.

    Attributes:
        side: of a window in pixels.
        convolutions: one after the other.
        dense: units of the layer before the last.
        classes: 2 for none and face, 45 for calibration.
        dropout: shares that are dropped of the image, and before each of the two dense layers.
        normalised: batch normalisation after every layer but the last.
        joined: a smaller network whose dense layer is joined to this one's ("multi-resolution"); it sees the window
            at its own side, which must divide this one's.
        inceptions: modules after the convolutions.
    """

    side: int
    convolutions: tuple[Convolution, ...]
    dense: int
    classes: int = 2
    dropout: tuple[float, float, float] = (0.0, 0.0, 0.0)
    normalised: bool = False
    joined: NetworkShape | None = None
    inceptions: tuple[Inception, ...] = ()

    def maps(self) -> tuple[int, int]:
        """Returns the side and the channels of the last map, which the dense layer sees."""
        side, channels = self.side, 3
        for one in self.convolutions:
            side, channels = (side - one.kernel) // one.step + 1, one.channels
            if one.pool:
                side = (side - one.pool) // one.stride + 1
        for module in self.inceptions:
            side, channels = (side + 1) // 2, module.channels
        return side, channels


Shapes = Mapping[str, NetworkShape]  # by name: detect12, calibrate12, detect24, …

_DROPPED = (0.0, 0.5, 0.5)

# What the source gives: calibrate12 and calibrate48, layer by layer. The rest follows the paper (Li et al. 2015).
SOURCE: Shapes = MappingProxyType(
    {
        "detect12": NetworkShape(12, (Convolution(16, 3, 3),), 16, dropout=(0.0, 0.0, 0.0)),
        "calibrate12": NetworkShape(12, (Convolution(16, 3, 2),), 128, CLASSES, dropout=(0.1, 0.5, 0.5)),
        "detect24": NetworkShape(24, (Convolution(64, 5, 3),), 128, dropout=_DROPPED),
        "calibrate24": NetworkShape(24, (Convolution(32, 5, 3),), 64, CLASSES, dropout=_DROPPED),
        "detect48": NetworkShape(48, (Convolution(64, 5, 3), Convolution(64, 5, 3)), 256, dropout=_DROPPED),
        "calibrate48": NetworkShape(
            48, (Convolution(64, 5, 2), Convolution(64, 5)), 256, CLASSES, dropout=(0.1, 0.3, 0.3)
        ),
    }
)

_LAST = (Convolution(32, 4, step=2), Convolution(48, 3, 2), Convolution(64, 3), Convolution(96, 3, 2))
_LAST_CALIBRATION = (Convolution(24, 4, step=2), Convolution(32, 3, 2), Convolution(48, 3, 2))

# What ships: batch normalisation, and 3x3 convolutions one after the other, which see as much for less.
SHIPPED: Shapes = MappingProxyType(
    {
        "detect12": NetworkShape(12, (Convolution(16, 3, 3),), 32, normalised=True),
        "calibrate12": NetworkShape(12, (Convolution(16, 3, 2),), 64, CLASSES, normalised=True),
        "detect24": NetworkShape(
            24, (Convolution(16, 3, 2), Convolution(32, 3, 3)), 64, dropout=(0.0, 0.1, 0.1), normalised=True
        ),
        "calibrate24": NetworkShape(24, (Convolution(16, 3, 2), Convolution(24, 3, 3)), 64, CLASSES, normalised=True),
        "detect48": NetworkShape(48, _LAST, 128, dropout=(0.0, 0.2, 0.2), normalised=True),
        "calibrate48": NetworkShape(48, _LAST_CALIBRATION, 128, CLASSES, dropout=(0.0, 0.1, 0.1), normalised=True),
    }
)


def normalised(shapes: Shapes) -> dict[str, NetworkShape]:
    """Returns the shapes with batch normalisation and, as the source found, half the dropout."""
    return {
        name: replace(shape, normalised=True, dropout=(0.0, shape.dropout[1] / 2, shape.dropout[2] / 2))
        for name, shape in shapes.items()
    }


def multi_resolution(shapes: Shapes) -> dict[str, NetworkShape]:
    """Returns the shapes with the smaller detection networks joined to those of levels 2 and 3, as in the paper."""
    second = replace(shapes["detect24"], joined=shapes["detect12"])
    return {**shapes, "detect24": second, "detect48": replace(shapes["detect48"], joined=second)}


_MODULES = (Inception(32, (48, 64), (8, 16)), Inception(64, (64, 96), (16, 48)), Inception(96, (48, 104), (8, 24)))


def inceptron(modules: int) -> NetworkShape:
    """Returns the write-up's "inceptron" at 48 pixels (it had 64): three modules; a fourth is as the third."""
    widths = (*_MODULES, _MODULES[-1])[:modules]
    return NetworkShape(48, (), 256, dropout=(0.0, 0.5, 0.0), normalised=True, inceptions=widths)


def larger(shape: NetworkShape) -> NetworkShape:
    """Returns a network with twice the channels and units."""
    wider = tuple(replace(one, channels=2 * one.channels) for one in shape.convolutions)
    return replace(shape, convolutions=wider, dense=2 * shape.dense)
