#!/usr/bin/env bash
# Everything that results.json is made of, from training to the table. A run whose network is there already is kept.
#   reproduce/table7/run.sh            all of it: about two and a half hours on two cores
#   reproduce/table7/run.sh ablation   one part: depth, averages, ablation or evaluate
# JOBS trainings at a time (2), each with one thread.
set -euo pipefail
cd "$(dirname "$0")/../.."
. reproduce/jobs.sh
here=reproduce/table7
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

train() { # NAME CONFIG ARGUMENTS...
    local name=$1 config=$2
    shift 2
    if [ -f "runs/$name/model.safetensors" ]; then
        return
    elif [ -f "runs/$name/checkpoints/last.ckpt" ]; then
        ddfnet train depth --config "runs/$name/config.yaml" --ckpt_path last >> "runs/$name.log" 2>&1
    else
        rm -rf "runs/$name"
        ddfnet train depth --config "$here/$config.yaml" --output "runs/$name" "$@" > "runs/$name.log" 2>&1
    fi
}

depth() { # the first weights, and the plain twin of their size
    start train depth depth
    start train twin depth --model.network.init_args.upsampler bilinear --model.network.init_args.channels 53 \
        --model.learning_rate 1.5e-3
    finish
}

averages() { # the weights that are shipped, from those of depth
    start train averages averages
    finish
}

ablation() { # rows of about as many parameters each, by their channels
    local network=--model.network.init_args seed row
    local features="$network.carry false $network.channels"
    for seed in 0 1 2; do
        for row in \
            "carried" \
            "twin $network.upsampler bilinear $network.channels 35" \
            "features $features 30" \
            "features-filter $features 30 $network.norm filter" \
            "features-spatial $features 37 $network.filters spatial" \
            "features-channel $features 30 $network.filters channel" \
            "features-add $features 30 $network.combine add"; do
            # shellcheck disable=SC2086  # the row is several words
            set -- $row
            local name=$1
            shift
            start train "ablation/$name-$seed" ablation --seed_everything "$seed" "$@"
        done
    done
    finish
}

evaluate() {
    mkdir -p "$here/results"
    ddfnet evaluate depth --data motorcycle aloe --checkpoint runs/depth/model.safetensors runs/twin/model.safetensors \
        --json "$here/results/pac.json"
    ddfnet evaluate depth --data motorcycle aloe --protocol bicubic \
        --checkpoint runs/depth/model.safetensors runs/twin/model.safetensors --json "$here/results/bicubic.json"
    ddfnet evaluate depth --data motorcycle aloe --methods --probe --checkpoint runs/depth/model.safetensors \
        --json "$here/results/probe.json"
    if compgen -G "runs/ablation/*/model.safetensors" > /dev/null; then
        ddfnet evaluate depth --data motorcycle aloe --factor 8 --methods \
            --checkpoint runs/ablation/*/model.safetensors --json "$here/results/ablation.json"
    fi
    ddfnet evaluate depth --data motorcycle aloe --checkpoint runs/averages/model.safetensors \
        --json "$here/results/averages.json"
    python "$here/ship.py" runs/averages/model.safetensors "$here/results/averages.json" ddfnet
    python "$here/collect.py"
}

mkdir -p runs/ablation
[ $# -gt 0 ] || set -- depth averages ablation evaluate
for part in "$@"; do
    case $part in
        depth | averages | ablation | evaluate) "$part" ;;
        *) echo "run.sh: depth, averages, ablation or evaluate is required, got $part" >&2 && exit 2 ;;
    esac
done
