#!/usr/bin/env bash
# Everything that results.json is made of, from training to the table. A run whose network is there already is kept.
#   reproduce/table7/run.sh            all of it but nyu and seeds: about five hours on two cores
#   reproduce/table7/run.sh ablation   one part: depth, averages, rooms, middlebury, ablation, evaluate, nyu or seeds
# middlebury wants middlebury15.tar in the working directory. nyu and seeds want nyu8.tar there; their networks are
# results, not for the package.
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

averages() { # from the weights of depth
    start train averages averages
    finish
}

rooms() { # from the weights of averages
    local photographs
    photographs=$(sed -n 's/^    - \(.*\)/--photographs \1/p' "$here/rooms.yaml")
    # shellcheck disable=SC2086  # several words
    ddfnet scenes render --count 400 --output runs/rooms $photographs
    start train rooms-network rooms
    finish
    between averages rooms-network 0.5 rooms-half
    start train noise noise
    finish
    between rooms-half noise 0.25 noise-quarter
}

middlebury() { # the weights that are shipped: the mean of two that have seen one half of the pairs each, from those of rooms
    python "$here/pairs.py" middlebury15.tar runs/pairs-a 03 07 11 15 19 23 27
    python "$here/pairs.py" middlebury15.tar runs/pairs-b 05 09 13 17 21 25 29
    start train middlebury-a middlebury --data.rooms runs/pairs-a
    start train middlebury-b middlebury --data.rooms runs/pairs-b
    finish
    between noise-quarter middlebury-a 0.5 half-a
    between noise-quarter middlebury-b 0.5 half-b
    between half-a half-b 0.5 shipped
    local ends="runs/middlebury-a/model.safetensors runs/middlebury-b/model.safetensors" protocol
    for protocol in pac gdsr; do
        # shellcheck disable=SC2086  # two words
        ddfnet evaluate depth --protocol "$protocol" --data middlebury15 --root middlebury15.tar --methods joint-bilateral \
            --checkpoint runs/half-a/model.safetensors runs/half-b/model.safetensors $ends \
            --json "$here/results/halves-$protocol.json"
    done
    # shellcheck disable=SC2086
    ddfnet evaluate depth --data motorcycle aloe --methods --checkpoint $ends --json "$here/results/ends.json"
}

between() { # BEFORE AFTER SHARE RESULT
    mkdir -p "runs/$4"
    python "$here/between.py" "runs/$1/model.safetensors" "runs/$2/model.safetensors" "$3" "runs/$4/model.safetensors"
}

nyu() { # trained and tested on NYU: the package's form, a plain twin of its size, and a PAC-Net
    local network=--model.network.init_args
    start train nyu nyu
    start train nyu-twin nyu "$network.upsampler" bilinear "$network.channels" 51
    finish
    [ -f runs/nyu-pacnet/model.safetensors ] || ddfnet --import "$here/pacnet.py" train depth --config "$here/nyu.yaml" \
        --output runs/nyu-pacnet --model.network pacnet.PacNet > runs/nyu-pacnet.log 2>&1
    for protocol in pac gdsr; do
        ddfnet evaluate depth --protocol "$protocol" --data nyu8 --root nyu8.tar --methods \
            --checkpoint runs/nyu/model.safetensors runs/nyu-twin/model.safetensors \
            --beside "$here/pacnet.py:pacnet" --json "runs/measured/nyu-$protocol.json"
    done
    python "$here/nyu.py" runs/measured/nyu-pac.json runs/measured/nyu-gdsr.json
}

seeds() { # the package's form and its plain twin, smaller and shorter, three seeds each on NYU at 8x
    local network=--model.network.init_args seed row
    local small="--trainer.max_steps 1000 --trainer.val_check_interval 1000 --model.factors [8] $network.guide_channels 32"
    small="$small --data.size 128 --data.batch_size 4"
    for seed in 0 1 2; do
        for row in "ours $network.channels 32" "twin $network.upsampler bilinear $network.channels 35"; do
            # shellcheck disable=SC2086  # the row is several words
            start train "seeds/${row%% *}-$seed" nyu --seed_everything "$seed" $small ${row#* }
        done
    done
    finish
    ddfnet evaluate depth --protocol pac --factor 8 --data nyu8 --root nyu8.tar --methods \
        --checkpoint runs/seeds/*/model.safetensors --json runs/measured/seeds.json
    python "$here/seeds.py" runs/measured/seeds.json
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
    ddfnet evaluate depth --data motorcycle aloe --checkpoint runs/shipped/model.safetensors \
        --json "$here/results/shipped.json"
    python "$here/ship.py" runs/shipped/model.safetensors "$here/results/shipped.json" ddfnet
    python "$here/collect.py"
}

mkdir -p runs/ablation runs/seeds runs/measured
[ $# -gt 0 ] || set -- depth averages rooms middlebury ablation evaluate
if [[ " $* " == *" middlebury "* && ! -f middlebury15.tar ]]; then # now, not after hours
    echo "run.sh: middlebury15.tar is required in $PWD, there is none; link it there, or name the other parts" >&2 && exit 2
fi
for part in "$@"; do
    case $part in
        depth | averages | rooms | middlebury | ablation | evaluate | nyu | seeds) "$part" ;;
        *) echo "run.sh: depth, averages, rooms, middlebury, ablation, evaluate, nyu or seeds is required, got $part" >&2 && exit 2 ;;
    esac
done
