# What systemd runs for the unit of a build; unit.py says why. DIRECTORY is the build's own.
#
#   start DIRECTORY LEAF COMMAND...   make the container; on cgroup v2 from a leaf of the unit's
#                                     group, which itself must be empty of processes
#   guard DIRECTORY                   stay, and tell of a signal that asks the unit to end: a
#                                     process of the build cannot know for whom such a signal is
#   started DIRECTORY                 tell that systemd has taken over the main process
#   ended DIRECTORY                   tell how that has ended, and wait until the unit may go
set -eu
step=$1 events=$2/events gate=$2/gate

case $step in
start)
    leaf=$3
    if [ -n "$leaf" ]; then
        mkdir -p "$leaf"
        echo 0 > "$leaf/cgroup.procs"
    fi
    /bin/sh "$0" guard "$2" > /dev/null 2>&1 &
    shift 3
    exec "$@" < /dev/null
    ;;
guard)
    trap 'echo stop 1<> "$events"; exit' HUP TERM
    # The daemon writes there only when the build is over.
    while :; do read -r _ <> "$gate" || :; done
    ;;
started)
    echo started 1<> "$events"
    ;;
ended)
    echo "ended $SERVICE_RESULT ${EXIT_CODE:-} ${EXIT_STATUS:-}" 1<> "$events"
    read -r _ < "$gate"
    ;;
esac
