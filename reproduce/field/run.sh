#!/usr/bin/env bash
# results.json and table.md: the commit before these changes beside the working tree. About half an hour on one core.
#   reproduce/field/run.sh [FOLDER OF SENSOR FRAMES]
# FOLDER/*/depth.png and color.*: registered, of one size. Without it that table is left out.
set -euo pipefail
cd "$(dirname "$0")/../.."
before=${BEFORE:-07ab735}
here=$PWD/reproduce/field
tree=$(mktemp -d)
trap 'git worktree remove --force "$tree/before"; rm -r "$tree"' EXIT
git worktree add --detach "$tree/before" "$before"
cp ddfnet/ops/libddfnet.so "$tree/before/ddfnet/ops/" 2> /dev/null || true
export OMP_NUM_THREADS=1
(cd "$tree/before" && PYTHONPATH=. python "$here/measure.py" "$tree/before.json" ${1:+--sensors "$1"})
PYTHONPATH=. python "$here/measure.py" "$tree/after.json" ${1:+--sensors "$1"}
PYTHONPATH=. python "$here/collect.py" "$tree/before.json" "$tree/after.json"
