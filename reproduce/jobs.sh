# Sourced by run.sh: JOBS trainings at a time (2). One that fails ends the script, where `set -e` is on.

jobs=0

start() { # COMMAND... : in the background, as soon as there is room
    "$@" < /dev/null &
    jobs=$((jobs + 1))
    if [ "$jobs" -ge "${JOBS:-2}" ]; then
        wait -n
        jobs=$((jobs - 1))
    fi
}

finish() { # wait for all that were started
    while [ "$jobs" -gt 0 ]; do
        wait -n
        jobs=$((jobs - 1))
    done
}
