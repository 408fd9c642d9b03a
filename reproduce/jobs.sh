# Sourced by run.sh: JOBS trainings at a time (2). The others go on where one fails; `finish` then fails.

started=()

start() { # COMMAND... : in the background, as soon as there is room
    # Not `wait -n`: of two that end at once it tells of one alone, and the count is wrong from there on.
    while [ "$(jobs -pr | wc -l)" -ge "${JOBS:-2}" ]; do
        sleep 0.2
    done
    "$@" < /dev/null &
    started+=($!)
}

finish() { # wait for all that were started
    local pid failed=0
    for pid in "${started[@]}"; do
        wait "$pid" || failed=1
    done
    started=()
    return "$failed"
}
