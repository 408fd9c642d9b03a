#!/usr/bin/env bash
# Make everything in results.json, from training to the figures. A finished run is kept; an interrupted run is resumed.
#   reproduce/table3/run.sh cifar10.tar.xz                   rows, costs, collect, keep
#   reproduce/table3/run.sh cifar10.tar.xz remedies collect  some parts of: rows, remedies, costs, collect, keep
# JOBS trainings at a time (2), each with one thread. MISSING=1 trains only the rows that results.json does not have; collect
# keeps the others. Costs are timed: leave the machine idle meanwhile.
set -euo pipefail
[ $# -ge 1 ] || { echo "run.sh: an archive of CIFAR-10, or torchvision's root, is required" >&2 && exit 2; }
images=$(realpath "$1")
shift
cd "$(dirname "$0")/../.."
. reproduce/jobs.sh
here=reproduce/table3
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

train() { # NAME ARGUMENTS... ; collect.py reads in the log if a run ended in nan
    local output=runs/table3/$1
    shift
    if [ -f "$output/model.safetensors" ]; then
        return
    elif [ -f "$output/checkpoints/last.ckpt" ]; then
        set -- --config "$output/config.yaml" --ckpt_path last
    else
        rm -rf "$output"
        set -- --config "$here/cifar10.yaml" --data.path "$images" --output "$output" "$@"
    fi
    ddfnet train classification "$@" >> "$output.log" 2>&1 || echo "$output: $(tail -n 1 "$output.log")" >&2
}

all_of() { # PART of the lines that rows.py prints
    local part name words
    while read -r part name words; do
        [ "$part" = "$1" ] || continue
        # shellcheck disable=SC2086  # several words, none with spaces in it
        start train "$name" $words
    done < <(python "$here/rows.py" ${MISSING:+--missing})
    finish
}

keep() { # copy the classifier and its card here, and measure its accuracy with `ddfnet evaluate`
    cp "runs/table3/${KEPT:=ddf-1}/model.safetensors" "runs/table3/$KEPT/model.json" "$here/"
    ddfnet evaluate classification --checkpoint "$here/model.safetensors" --data "$images" --source cifar10 \
        --json "$here/evaluated.json"
    # The folder of the images is private.
    sed --in-place "s|$(dirname "$images")/||g" "$here/model.json" "$here/evaluated.json"
}

mkdir -p runs/table3
[ $# -gt 0 ] || set -- rows costs collect keep
for part in "$@"; do
    case $part in
        rows | remedies) all_of "$part" ;;
        costs) python "$here/costs.py" ;;
        keep) keep ;;
        collect) python "$here/collect.py" && python "$here/figures.py" ;;
        *) echo "run.sh: rows, remedies, costs, collect or keep is required, got $part" >&2 && exit 2 ;;
    esac
done
