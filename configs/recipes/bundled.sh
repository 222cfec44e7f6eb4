#!/bin/sh
# Makes a network of the bundled one's shape from nothing, then the three heads on its features.
#
#   sh configs/recipes/bundled.sh FER2013 OUT [words for train-backbone]
#
# FER2013 is a folder with train.tar.gz, val.tar.gz, test.tar (left out by its bytes, not read otherwise) and
# ferplus.csv. If it was killed or interrupted, run the same command to resume. models/weights/README.md says how long
# it takes.
set -eu
usage='usage: sh configs/recipes/bundled.sh FER2013 OUT [words for train-backbone]'
data=${1:?$usage}
out=${2:?$usage}
shift 2
recipes=$(dirname "$0")
python=${PYTHON:-python}

train() {
    "$python" -m pipeline "$@" \
        --input "$data/train.tar.gz" --validation "$data/val.tar.gz" --exclude-copies-of "$data/test.tar"
}

train train-backbone --config "$recipes/face_vgg.yaml" --soft-labels "ferplus=$data/ferplus.csv" \
    --output "$out/first" "$@"
train train-backbone --config "$recipes/face_vgg_restart.yaml" --soft-labels "ferplus=$data/ferplus.csv" \
    --output "$out/face_vgg" --set "train.start=$out/first/face_vgg.npz" "$@"
# FER2013's labels are noisy: votes are blended in, the largest share within one standard error, in accuracy and macro F1
# on validation, of the best head without votes. C is the smallest by the same rule, for pictures that are not like FER2013's.
# Both were chosen on the features of the network that ships, not anew on those that are made here.
network="features.weights=$out/face_vgg/face_vgg.npz"
train train-head --cache "$out/cache" --output "$out/fer2013" --set faces.detector=none "$network" \
    head.imbalance=inverse_sqrt head.strength=1e-4 head.soft_share=0.15 --soft-labels "$data/ferplus.csv" \
    --rename-classes anger=angry happiness=happy sadness=sad contempt= unknown= NF=
train train-head --cache "$out/cache" --output "$out/ferplus" --set faces.detector=none "$network" \
    head.strength=1e-3 \
    --soft-labels "$data/ferplus.csv" --reject unknown NF
smile='happiness=smile neutral=other surprise=other sadness=other anger=other disgust=other fear=other contempt=other'
# shellcheck disable=SC2086 # $smile is several words
train train-head --cache "$out/cache" --output "$out/smile" --set faces.detector=none "$network" \
    head.strength=1e-3 \
    --soft-labels "$data/ferplus.csv" --rename-classes $smile --reject unknown NF

# The intensity: the share of people who would choose the label.
intensity() {
    "$python" -m pipeline calibrate --input "$data/val.tar.gz" --head "$out/$1" --cache "$out/cache" \
        --output "$out/$1_with_intensity" --set faces.detector=none "$network" \
        --soft-labels "$data/ferplus.csv" --rename-classes unknown= NF= $2
}
intensity ferplus ''
intensity smile "$smile"
