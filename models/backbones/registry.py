"""The table of backbones. A new network is a file beside this one and a line here.

Sources, through `keras.applications`: VGG16 and VGG19 are Simonyan and Zisserman 2014 (arXiv:1409.1556), MobileNet
Howard et al. 2017 (arXiv:1704.04861), MobileNetV2 Sandler et al. 2018 (arXiv:1801.04381), ResNet50 He et al. 2015
(arXiv:1512.03385). `face_vgg` is our own compact member of the first family; its variants look at places as
EAC-Net does (Li et al. 2017, arXiv:1702.02925).
"""

from __future__ import annotations

from pathlib import Path

from models.backbones.applications import Application
from models.backbones.backbone import Backbone, BackboneError
from models.backbones.face_vgg import FaceVgg
from models.backbones.face_vgg_places import FaceVggPlaces
from models.backbones.preprocess import CAFFE, SYMMETRIC, UNIT
from models.backbones.vgg import Vgg

BUNDLED_WEIGHTS = Path(__file__).parents[1] / "weights" / "face_vgg.npz"
_NO_TOP = "weights_tf_dim_ordering_tf_kernels_notop.h5"
_POOLS = tuple(f"block{number}_pool" for number in range(1, 6))
MOBILENET = Application(
    "mobilenet",
    *(3, (224, 224), 32, SYMMETRIC),
    imagenet="mobilenet_1_0_224_tf_no_top.h5",
    maker="MobileNet",
    blocks=tuple(f"conv_pw_{number}_relu" for number in (1, 3, 5, 11, 13)),
    ends=("conv1", "conv_pw_13"),
)
MOBILENET_V2 = Application(
    "mobilenet_v2",
    *(3, (224, 224), 32, SYMMETRIC),
    imagenet="mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
    maker="MobileNetV2",
    blocks=("expanded_conv_project_BN", "block_2_add", "block_5_add", "block_12_add", "out_relu"),
    ends=("Conv1", "Conv_1"),
)
RESNET50 = Application(
    "resnet50",
    *(3, (224, 224), 32, CAFFE),
    imagenet=f"resnet50_{_NO_TOP}",
    maker="ResNet50",
    blocks=("conv1_relu", "conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out"),
    ends=("conv1_conv", "conv5_block3_3_conv"),
)
BACKBONES: dict[str, Backbone] = {
    kind.name: kind
    for kind in (
        FaceVgg("face_vgg", 1, (48, 48), 16, UNIT, bundled=BUNDLED_WEIGHTS),
        FaceVggPlaces("face_vgg_attention", 1, (48, 48), 16, UNIT, looks_at="attention"),
        FaceVggPlaces("face_vgg_regions", 1, (48, 48), 16, UNIT, looks_at="regions"),
        FaceVggPlaces("face_vgg_grid", 1, (48, 48), 16, UNIT, looks_at="grid"),
        Vgg("vgg16", 3, (224, 224), 32, CAFFE, imagenet=f"vgg16_{_NO_TOP}", maker="VGG16", blocks=_POOLS),
        Vgg("vgg19", 3, (224, 224), 32, CAFFE, imagenet=f"vgg19_{_NO_TOP}", maker="VGG19", blocks=_POOLS),
        MOBILENET,
        MOBILENET_V2,
        RESNET50,
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
