#!/usr/bin/env bash
# Train our rows of table 5, and the plain ResNets with the same recipe, one after another.
#   reproduce/table5/run.sh FOLDER             FOLDER has train/ and val/, with one folder per class
#   RECIPE=released GPUS=8 reproduce/table5/run.sh FOLDER ddf_mul_resnet50 resnet50
# A finished run is kept; an interrupted run is resumed.
set -euo pipefail
[ $# -ge 1 ] || { echo "run.sh: a folder of ImageNet is required" >&2 && exit 2; }
images=$(realpath "$1")
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
            --data.path "$images")
    fi
    torchrun --standalone --nproc-per-node "${GPUS:-gpu}" -m ddfnet train classification "${set_of[@]}"
done
