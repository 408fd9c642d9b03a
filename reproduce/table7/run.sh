#!/usr/bin/env bash
# Everything that results.json is made of, from training to the table. A run whose network is there already is kept.
#   reproduce/table7/run.sh            all of it: about five hours on two cores
#   reproduce/table7/run.sh ablation   one part: guided, ablation or evaluate
# JOBS trainings at a time (2), each with one thread.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=reproduce/table7
export OMP_NUM_THREADS=1

train() { # NAME CONFIG ARGUMENTS...
    local name=$1 config=$2
    shift 2
    if [ ! -f "runs/$name/model.safetensors" ]; then
        rm -rf "runs/$name"
        ddfnet train guided --config "$here/$config.yaml" --output "runs/$name" "$@" > "runs/$name.log" 2>&1
    fi
}

guided() { # the weights that are shipped, and the plain twin of their size
    train guided guided &
    train twin guided --model.network.init_args.upsampler bilinear --model.network.init_args.channels 53 \
        --model.learning_rate 1.5e-3 &
    wait
}

ablation() {
    local network=--model.network.init_args slow="--model.learning_rate 1.5e-3" jobs=0 seed row
    local paper="$network.carry false $network.norm filter $slow"
    for seed in 0 1 2; do
        for row in \
            "carried" \
            "twin $network.upsampler bilinear $network.channels 35 $slow" \
            "paper $paper" \
            "paper-softmax $paper $network.norm softmax" \
            "paper-spatial $paper $network.filters spatial" \
            "paper-channel $paper $network.filters channel" \
            "paper-add $paper $network.combine add"; do
            # shellcheck disable=SC2086  # the row is several words
            set -- $row
            local name=$1
            shift
            train "ablation/$name-$seed" ablation --seed_everything "$seed" "$@" &
            jobs=$((jobs + 1))
            if [ "$jobs" -ge "${JOBS:-2}" ]; then
                wait -n
                jobs=$((jobs - 1))
            fi
        done
    done
    wait
}

evaluate() {
    mkdir -p "$here/results"
    ddfnet evaluate guided --data motorcycle aloe --checkpoint runs/guided/model.safetensors runs/twin/model.safetensors \
        --json "$here/results/pac.json"
    ddfnet evaluate guided --data motorcycle aloe --protocol bicubic \
        --checkpoint runs/guided/model.safetensors runs/twin/model.safetensors --json "$here/results/bicubic.json"
    ddfnet evaluate guided --data motorcycle aloe --factor 8 --methods --checkpoint runs/ablation/*/model.safetensors \
        --json "$here/results/ablation.json"
    python "$here/collect.py"
}

mkdir -p runs/ablation
for part in "${@:-guided ablation evaluate}"; do
    for step in $part; do "$step"; done
done
