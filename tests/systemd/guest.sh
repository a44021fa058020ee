#!/bin/sh
# Becomes process 1 of a machine of its own (machine.py starts it in fresh namespaces): puts a
# root together from an overlay of the host's, with API file systems of its own, and runs systemd.
# Every mount made here ends with the namespace.
#
#   guest.sh DIRECTORY PLACE    DIRECTORY/share is shown as /run/host, DIRECTORY/go says when to
#                               begin; PLACE is shown where it is, even below /tmp
set -eu
directory=$1 place=$2

# Our parent leaves the cgroups first: systemd refuses groups with processes that it cannot see.
read -r _ < "$directory/go"

mount --make-rprivate /
mkdir "$directory/layers"
mount -t tmpfs -o mode=755 layers "$directory/layers"
mkdir "$directory/layers/upper" "$directory/layers/work" "$directory/layers/root"
root=$directory/layers/root
mount -t overlay root \
    -o "lowerdir=/,upperdir=$directory/layers/upper,workdir=$directory/layers/work" "$root"

mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro,nosuid,nodev,noexec "$root/proc/sys"
mount -t sysfs -o nosuid,nodev,noexec sysfs "$root/sys"
mount -t tmpfs -o mode=755,nosuid,nodev run "$root/run"
# The kernel lets a user namespace mount /proc only where a whole one is to be seen; ours is not.
mkdir "$root/run/proc"
mount -t proc -o nosuid,nodev,noexec proc "$root/run/proc"
mount -t tmpfs -o mode=1777,nosuid,nodev tmp "$root/tmp"

mount -t tmpfs -o mode=755,nosuid dev "$root/dev"
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5,nosuid,noexec devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777,nosuid,nodev shm "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for stream in 0:stdin 1:stdout 2:stderr; do
    ln -s "/proc/self/fd/${stream%:*}" "$root/dev/${stream#*:}"
done
(
    umask 0
    while read -r name major minor; do
        mknod -m 666 "$root/dev/$name" c "$major" "$minor"
    done <<DEVICES
null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
tty 5 0
fuse 10 229
DEVICES
)
: > "$root/dev/console"
mount --bind "$(readlink /proc/self/fd/0)" "$root/dev/console"

# The cgroup namespace has a group made for this machine as its root, in every hierarchy.
mount -t tmpfs -o mode=755,nosuid,nodev,noexec cgroups "$root/sys/fs/cgroup"
while IFS=: read -r _ controllers _; do
    case $controllers in
        '') name=unified type=cgroup2 options=nosuid,nodev,noexec ;;
        name=systemd) name=systemd type=cgroup options=nosuid,nodev,noexec,none,name=systemd ;;
        name=*) continue ;;
        *) name=$controllers type=cgroup options=nosuid,nodev,noexec,$controllers ;;
    esac
    mkdir "$root/sys/fs/cgroup/$name"
    mount -t "$type" -o "$options" "$type" "$root/sys/fs/cgroup/$name"
done < /proc/self/cgroup
if [ ! -d "$root/sys/fs/cgroup/systemd" ]; then
    mkdir "$root/sys/fs/cgroup/systemd"
    mount -t cgroup -o nosuid,nodev,noexec,none,name=systemd cgroup "$root/sys/fs/cgroup/systemd"
fi

mkdir -p "$root$place" "$root/run/place"
mount --bind "$place" "$root$place"
# There it can be reached by every user, whoever may enter the directories above it.
mount --bind "$place" "$root/run/place"
mkdir "$root/run/host"
mount --bind "$directory/share" "$root/run/host"

. "${0%/*}/root.sh"

cd "$root"
mkdir -p .old
pivot_root . .old
cd /
umount -l /.old
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
    container=machine NOTIFY_SOCKET=/run/host/notify /lib/systemd/systemd --system
