# A service in a machine of User-Mode Linux: runs the jobs whose names come over the serial line.
# A job is a directory with `command`, `in`, `out`, `err` and `status`, which is filled at the end.

exec 3< /dev/ttyS0
: > /run/host/ready
while read -r job <&3; do
    (
        cd /
        . "/run/host/$job/command"
        echo "$?" > "/run/host/$job/status"
    ) < "/run/host/$job/in" > "/run/host/$job/out" 2> "/run/host/$job/err" 3<&- &
done
