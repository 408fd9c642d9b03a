#!/usr/bin/env bash
# Make everything in results.json: seven upsamplers, three seeds, trained and tested on BCCD, and the table.
#   BCCD=bccd.tar.xz reproduce/table6/run.sh          all of it: 21 runs of about five minutes on one core
#   reproduce/table6/run.sh evaluate                  one part: train or evaluate
#   UPSAMPLERS="nearest ddf" SEEDS=0 reproduce/table6/run.sh train
# BCCD is the archive with BCCD/Annotations, BCCD/JPEGImages and BCCD/ImageSets, or the unpacked folder. JOBS trainings
# at a time (2), each with one thread. A finished run is kept; an interrupted run is resumed.
set -euo pipefail
cd "$(dirname "$0")/../.."
. reproduce/jobs.sh
here=reproduce/table6
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
read -ra upsamplers <<< "${UPSAMPLERS:-nearest bilinear deconv pixelshuffle carafe dysample ddf}"
read -ra seeds <<< "${SEEDS:-0 1 2}"

data() { # prints the folder
    if [ -d "${BCCD:-}" ]; then
        echo "$BCCD"
        return
    fi
    if [ ! -d runs/bccd/BCCD ]; then
        : "${BCCD:?must be the archive or the folder of BCCD}"
        mkdir -p runs/bccd
        tar --extract --file "$BCCD" --directory runs/bccd
    fi
    echo runs/bccd/BCCD
}

one() { # UPSAMPLER SEED
    local run=runs/table6/$1-$2
    if [ -f "$run/model.safetensors" ]; then
        return
    elif [ -f "$run/checkpoints/last.ckpt" ]; then
        ddfnet train detection --config "$run/config.yaml" --ckpt_path last >> "$run.log" 2>&1
    else
        rm -rf "$run"
        ddfnet train detection --config "$here/bccd.yaml" --data.root "$folder" --output "$run" \
            --model.network.upsampler "$1" --seed_everything "$2" > "$run.log" 2>&1
    fi
}

train() {
    local seed upsampler
    for seed in "${seeds[@]}"; do
        for upsampler in "${upsamplers[@]}"; do
            start one "$upsampler" "$seed"
        done
    done
    finish
}

evaluate() {
    local files=() seed upsampler
    for upsampler in "${upsamplers[@]}"; do
        for seed in "${seeds[@]}"; do
            files+=("runs/table6/$upsampler-$seed/model.safetensors")
        done
    done
    mkdir -p "$here/results"
    ddfnet evaluate detection --data "$folder" --part test --checkpoint "${files[@]}" \
        --json "$here/results/bccd.json"
    python "$here/collect.py"
}

folder=$(data)
mkdir -p runs/table6
[ $# -gt 0 ] || set -- train evaluate
for part in "$@"; do
    case $part in
        train | evaluate) "$part" ;;
        *) echo "run.sh: train or evaluate is required, got $part" >&2 && exit 2 ;;
    esac
done
