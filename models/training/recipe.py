"""A recipe: all settings of a training in one value that can be stored and compared.

Plain data, so that settings and `--help` need neither Keras nor numpy. The settings are applied in `augment.py`,
`losses.py`, `optimisers.py` and `trainer.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        epochs: passes over the training images.
        batch_size: images per step.
        optimiser: `sgd` (Nesterov), `adam` or `rmsprop`.
        learning_rate: the peak, per step.
        schedule: `cosine` (to zero), `plateau` (times `plateau_factor` after `plateau_patience` epochs without a
            better validation) or `constant`.
        warmup_epochs: epochs over which the rate rises from zero; may be a fraction.
        weight_decay: decoupled: each step multiplies kernels, but not biases or normalisation, by 1 - rate x decay.
        ema_decay: momentum per step of the running mean of the weights, which is validated and kept; 0: no mean.
        clip_norm: largest norm of a gradient; 0 does not clip.
        stop_patience: epochs without a better validation after which training ends; 0 never ends early.
        keep: the epoch whose weights are kept, `last` or `best` (on validation).
        loss: `cross_entropy`, `focal`, `generalised` or `squared`, see `losses.ClassLoss`.
        label_smoothing: share of a hard label spread over all classes; votes, blends and other shares are unchanged.
        imbalance: `natural`, `inverse_sqrt` (weights 1 / sqrt(class frequency), mean 1), `logit_adjustment`
            (log of the class frequency added to the logits in training: Menon et al. 2021, arXiv:2007.07314) or
            `balanced_draws` (each step draws every class equally often, with replacement; an epoch has as many steps).
        mixup: alpha of the Beta distribution of Zhang et al. 2018 (arXiv:1710.09412); 0 mixes nothing.
        dropout, top_dropout: rates after each block and before the classifiers.
        crop: side of the square cut from the middle after the warp, in pixels; 0 keeps the whole image. A smaller
            crop trains faster; the network is then applied to whole images.
        sides: sides of training images in pixels, each for an equal share of the epochs. Small ones first save time
            (progressive resizing; Tan and Le 2021, arXiv:2104.00298, section 4). Images are reduced by area after all
            other changes. Empty: full size. Validation always uses full images, so epochs of a small side look bad
            there; the settings therefore refuse plateaus and early stopping together with sides.
        thirtyfold: True to give each image, each time it is seen, one of thirty fixed changes: five filters (none,
            mean, unsharp mask, motion blur across and down) times six positions (none, two rotations, three shifts).
        flip: True to mirror half of the images.
        shift: largest shift, a fraction of the side, either way.
        rotation: largest rotation in degrees, either way.
        scale: largest enlargement, a fraction.
        shrink: largest reduction, a fraction, small ones more often; for faces in too wide a frame.
        contrast: largest change, a fraction, either way.
        brightness: largest darkening, a fraction; brightening goes half as far.
        blur: largest share of a 3x3 mean mixed in.
        reduce: share of the images reduced, to no less than a third of the side, and enlarged again.
        compress: share of the images rounded as JPEG of quality 10 to 90 does.
        erase: share of the images in which noise replaces a rectangle.
        frozen: prefixes of the names of layers that are not trained.
        rates: factors on the learning rate by prefix of the layer name; the longest match is used.
        seed: of initial weights, order and random changes.
        precision: a Keras dtype policy.
    """

    epochs: int = 60
    batch_size: int = 128
    optimiser: str = "sgd"
    learning_rate: float = 0.08
    schedule: str = "cosine"
    warmup_epochs: float = 2.0
    plateau_factor: float = 0.75
    plateau_patience: int = 5
    momentum: float = 0.9
    weight_decay: float = 2e-3
    ema_decay: float = 0.998
    clip_norm: float = 0.0
    stop_patience: int = 0
    keep: str = "last"
    loss: str = "cross_entropy"
    label_smoothing: float = 0.1
    imbalance: str = "natural"
    mixup: float = 0.0
    dropout: float = 0.0
    top_dropout: float = 0.3
    crop: int = 40
    progressive_sizes: tuple[int, ...] = ()
    thirtyfold: bool = False
    flip: bool = True
    shift: float = 0.08
    rotation: float = 15.0
    scale: float = 0.2
    shrink: float = 0.6
    contrast: float = 0.3
    brightness: float = 0.5
    blur: float = 0.8
    zoom_out: float = 0.0
    compress: float = 0.0
    erase: float = 0.25
    frozen: tuple[str, ...] = ()
    rates: dict[str, float] = field(default_factory=dict)
    seed: int = 0
    precision: str = "mixed_bfloat16"

    def side_in(self, epoch: int) -> int | None:
        """Returns the side in pixels to which images are reduced in an epoch, counted from 0; None if they are not.

        >>> [Recipe(epochs=4, progressive_sizes=(24, 48)).side_in(epoch) for epoch in range(4)]
        [24, 24, 48, 48]
        """
        if not self.progressive_sizes:
            return None
        rank = math.ceil(
            (epoch + 1) * len(self.progressive_sizes) / self.epochs
        )  # from 1; the last epoch has the last side
        return self.progressive_sizes[rank - 1]
