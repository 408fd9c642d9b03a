#!/usr/bin/env bash
# Everything that results.json is made of: some five minutes on two cores, on a machine that does nothing else.
#   reproduce/table1-2-A/run.sh           all of it
#   reproduce/table1-2-A/run.sh table2    one part: table1, table2 or tableA
set -euo pipefail
cd "$(dirname "$0")/../.."
here=reproduce/table1-2-A
mkdir -p "$here/results"

bench() { # GROUP ROUNDS COMPETITORS ARGUMENTS...
    local group=$1 rounds=$2 only=$3
    shift 3
    ddfnet bench layer --group "$group" --rounds "$rounds" --only "$only" --threads "${THREADS:-2}" \
        --json "$here/results/$group.json" "$@"
}

[ $# -gt 0 ] || set -- table1 table2 tableA
for part in "$@"; do
    case $part in
        table1) bench table1 5 ddf,conv,depthwise,pac,dynamic-depthwise,dynamic --memory ;;
        # The full dynamic filter is named so that the file says why it is left out.
        table2) bench table2 5 ddf,conv,depthwise,pac,dynamic-depthwise,dynamic --memory ;;
        tableA) bench tableA 7 ddf,conv,depthwise,operator ;;
        *) echo "run.sh: table1, table2 or tableA is required, got $part" >&2 && exit 2 ;;
    esac
done
python "$here/collect.py"
