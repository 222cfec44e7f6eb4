#!/bin/sh
# Makes what models/weights holds again: the network in two stages, then both heads on its features.
#
#   sh configs/recipes/bundled.sh FER2013 OUT [words for train-backbone]
#
# FER2013 is a folder with train.tar.gz, val.tar.gz, test.tar (left out by its bytes, not read otherwise) and
# ferplus.csv. Killed or interrupted, the same command goes on. models/weights/README.md tells how long it takes.
set -eu
usage='usage: sh configs/recipes/bundled.sh FER2013 OUT [words for train-backbone]'
data=${1:?$usage}
out=${2:?$usage}
shift 2
recipes=$(dirname "$0")
python=${PYTHON:-python}

train() {
    "$python" -m pipeline "$@" \
        --input "$data/train.tar.gz" --validation "$data/val.tar.gz" --exclude "$data/test.tar"
}

train train-backbone --config "$recipes/face_vgg.yaml" --soft-labels "ferplus=$data/ferplus.csv" \
    --output "$out/first" "$@"
train train-backbone --config "$recipes/face_vgg_fine.yaml" --soft-labels "ferplus=$data/ferplus.csv" \
    --output "$out/face_vgg" "$@" --set "train.start=$out/first/face_vgg.npz"
# C is the strongest of the sweep within one standard error of the best: weaker ones lose more on damaged pictures
network="features.weights=$out/face_vgg/face_vgg.npz"
train train-head --cache "$out/cache" --output "$out/fer2013" --set faces.detector=none "$network" \
    head.imbalance=inverse_sqrt head.strength=1e-4
train train-head --cache "$out/cache" --output "$out/ferplus" --set faces.detector=none "$network" \
    head.strength=1e-3 \
    --soft-labels "$data/ferplus.csv" --reject unknown NF
