#!/usr/bin/env bash
# Everything that results.json is made of, from training to the figures. A run whose network is there already is kept, and
# one that was broken off is gone on with.
#   reproduce/table3/run.sh cifar10.tar.xz                   rows, costs, collect, keep
#   reproduce/table3/run.sh cifar10.tar.xz remedies collect  some parts of: rows, remedies, costs, collect, keep
# JOBS trainings at a time (2), each with one thread. MISSING=1 trains only what results.json does not have, which collect
# leaves as it is. Costs are timed: leave the machine alone meanwhile.
set -euo pipefail
[ $# -ge 1 ] || { echo "run.sh: an archive of CIFAR-10, or torchvision's root, is required" >&2 && exit 2; }
pictures=$(realpath "$1")
shift
cd "$(dirname "$0")/../.."
. reproduce/jobs.sh
here=reproduce/table3
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

train() { # NAME ARGUMENTS... ; one that ends in nan is a result too, which collect.py reads in its log
    local output=runs/table3/$1
    shift
    if [ -f "$output/model.safetensors" ]; then
        return
    elif [ -f "$output/checkpoints/last.ckpt" ]; then
        set -- --config "$output/config.yaml" --ckpt_path last
    else
        rm -rf "$output"
        set -- --config "$here/cifar10.yaml" --data.path "$pictures" --output "$output" "$@"
    fi
    ddfnet train classification "$@" >> "$output.log" 2>&1 || echo "$output: $(tail -n 1 "$output.log")" >&2
}

all_of() { # PART: of what rows.py prints
    local part name words
    while read -r part name words; do
        [ "$part" = "$1" ] || continue
        # shellcheck disable=SC2086  # several words, none with spaces in it
        start train "$name" $words
    done < <(python "$here/rows.py" ${MISSING:+--missing})
    finish
}

keep() { # the classifier that is kept, its card, and its accuracy as `ddfnet evaluate` gives it
    cp "runs/table3/${KEPT:=ddf-1}/model.safetensors" "runs/table3/$KEPT/model.json" "$here/"
    ddfnet evaluate classification --checkpoint "$here/model.safetensors" --data "$pictures" --source cifar10 \
        --json "$here/evaluated.json"
    # Where the pictures lay is nobody else's business.
    sed --in-place "s|$(dirname "$pictures")/||g" "$here/model.json" "$here/evaluated.json"
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
