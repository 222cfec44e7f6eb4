#!/bin/sh
# A competition of nine emotions (system S4 of docs/systems.md): trains a network, writes the submission, and scores it.
#
#   sh configs/recipes/competition.sh FER2013 OUT RECIPE [words for train-backbone]
#   sh configs/recipes/competition.sh fer2013 out/simple configs/recipes/competition_simple.yaml
#   sh configs/recipes/competition.sh fer2013 out/mobile configs/recipes/competition_fine_tuned.yaml \
#       --set train.start=nets/mobilenet_v1_1.0_224_f16.npz
#
# FER2013 is a folder with train.tar.gz, val.tar.gz, test.tar and ferplus.csv, the votes of ten people an image. The label
# of an image is the class with most votes; of equal ones the first by name. Images that most call no face are left out.
# If it was killed or interrupted, run the same command to resume. `--epochs 1` shortens it.
set -eu
usage='usage: sh configs/recipes/competition.sh FER2013 OUT RECIPE [words for train-backbone]'
data=${1:?$usage}
out=${2:?$usage}
recipe=${3:?$usage}
shift 3
python=${PYTHON:-python}
mkdir -p "$out"

"$python" - "$data/ferplus.csv" "$out/labels.csv" <<'END'
import csv, sys

with open(sys.argv[1], newline="") as votes, open(sys.argv[2], "w", newline="") as labels:
    rows, writer = csv.reader(votes), csv.writer(labels)
    classes = next(rows)[1:]
    writer.writerow(["image", "emotion"])
    for image, *counts in rows:
        most = max(map(int, counts))
        leading = min(name for name, count in zip(classes, counts) if int(count) == most)
        if leading != "NF":
            writer.writerow([image, leading])
END

column=read.label_column=emotion
labels=read.labels=$out/labels.csv
"$python" -m pipeline train-backbone --config "$recipe" --input "$data/train.tar.gz" --validation "$data/val.tar.gz" \
    --exclude-copies-of "$data/test.tar" --output "$out/network" --set $column "$labels" "$@"
network=$("$python" - "$out/network/head/head.json" <<'END'
import json, sys

features = json.load(open(sys.argv[1]))["features"]
height, width, _ = features["input"]
print(features["backbone"], f"{height}x{width}")
END
)
backbone=${network% *}
"$python" -m pipeline --runner=DirectRunner --input "$data/test.tar" --output "$out/labelled" \
    --head "$out/network/head" --set faces.detector=none $column "$labels" \
    features.backbone=$backbone "features.weights=$out/network/$backbone.npz" features.pooling=avg \
    features.input_size=${network#* } features.flip_average=false features.flip_cut=0
"$python" -m pipeline evaluate --predictions "$out/labelled" --output "$out/score" --set $column "$labels"
