#!/usr/bin/env bash
# Trains the rows of table 5 that are ours, and the plain twins in the same recipe, one after another.
#   reproduce/table5/run.sh FOLDER             with train/ and val/, a folder a class
#   RECIPE=released GPUS=8 reproduce/table5/run.sh FOLDER ddf_mul_resnet50 resnet50
# A run whose network is there already is kept, and one that was broken off is gone on with.
set -euo pipefail
[ $# -ge 1 ] || { echo "run.sh: a folder of ImageNet is required" >&2 && exit 2; }
pictures=$(realpath "$1")
shift
cd "$(dirname "$0")/../.."
[ $# -gt 0 ] || set -- ddf_mul_resnet50 ddf_add_resnet50 resnet50 ddf_mul_resnet101 ddf_add_resnet101 resnet101
for network in "$@"; do
    output=runs/imagenet-${RECIPE:=paper}/$network
    if [ -f "$output/model.safetensors" ]; then
        continue
    elif [ -f "$output/checkpoints/last.ckpt" ]; then
        set_of=(--config "$output/config.yaml" --ckpt_path last)
    else
        rm -rf "$output"
        set_of=(--config "imagenet-$RECIPE" --output "$output" --model.network "$network"
            --data.path "$pictures")
    fi
    torchrun --standalone --nproc-per-node "${GPUS:-gpu}" -m ddfnet train classification "${set_of[@]}"
done
