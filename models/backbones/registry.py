"""The table of backbones. A new network is a file beside this one and a line here.

Sources: VGG16 and VGG19 are Simonyan and Zisserman 2014 (arXiv:1409.1556) through `keras.applications`; `face_vgg` is
our own compact member of that family.
"""

from __future__ import annotations

from pathlib import Path

from models.backbones.backbone import Backbone, BackboneError
from models.backbones.face_vgg import FaceVgg
from models.backbones.preprocess import CAFFE, UNIT
from models.backbones.vgg import Vgg

BUNDLED_WEIGHTS = Path(__file__).parents[1] / "weights" / "face_vgg.npz"
BACKBONES: dict[str, Backbone] = {
    kind.name: kind
    for kind in (
        FaceVgg("face_vgg", 1, (48, 48), 16, UNIT, bundled=BUNDLED_WEIGHTS),
        Vgg("vgg16", 3, (224, 224), 32, CAFFE, imagenet="vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"),
        Vgg("vgg19", 3, (224, 224), 32, CAFFE, imagenet="vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5"),
    )
}


def backbone(name: str) -> Backbone:
    """Returns the backbone of that name.

    Raises:
        BackboneError: the name is unknown; lists the known names.
    """
    if name not in BACKBONES:
        raise BackboneError(f"features.backbone={name} is not one of {', '.join(BACKBONES)}")
    return BACKBONES[name]
