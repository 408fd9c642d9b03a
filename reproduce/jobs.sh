# Sourced by run.sh: JOBS trainings at a time (2). The others go on where one fails; `finish` then fails.

failures=$(mktemp)
trap 'rm -f "$failures"' EXIT

start() { # COMMAND... : in the background, as soon as there is room
    # Not `wait -n`: of two that end at once it tells of one alone, and the count is wrong from there on.
    while [ "$(jobs -pr | wc -l)" -ge "${JOBS:-2}" ]; do
        sleep 0.2
    done
    # Not `wait PID` in the end: of many that ended long before, bash forgets how.
    { "$@" < /dev/null || echo "$*" >> "$failures"; } &
}

finish() { # wait for all that were started
    wait
    [ ! -s "$failures" ] || { : > "$failures" && return 1; }
}
