#!/bin/sh
# The first program on a kernel of User-Mode Linux (uml.py starts it) whose root is the host's,
# read-only: puts an overlay on it and runs systemd there, with a service that runs what tests ask
# for.  The kernel makes an environment of its command line:
#
#   modules   where this kernel's modules are
#   place     the checkout's path, at which it is shown, even below /tmp
#   shared    a directory of the host's, shown as /run/host
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin

mount -t proc proc /proc
for module in overlayfs/overlay fuse/fuse; do
    busybox insmod "$modules/$(uname -r)/kernel/fs/$module.ko"
done
mount -t tmpfs -o mode=755 layers /mnt
mkdir /mnt/upper /mnt/work /mnt/root
root=/mnt/root
mount -t overlay root -o "lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work" "$root"
mount -t tmpfs -o mode=755,nosuid,nodev run "$root/run"
mount -t tmpfs -o mode=1777,nosuid,nodev tmp "$root/tmp"
mkdir -p "$root$place" "$root/run/place" "$root/run/host"
mount -t hostfs -o "$place" place "$root$place"
mount -t hostfs -o "$place" place "$root/run/place"
# The host sees at once what is written there.
mount -t hostfs -o "sync,$shared" shared "$root/run/host"

. "${0%/*}/root.sh"
mkdir "$units/machine.target.wants"
cat > "$units/jobs.service" <<UNIT
[Service]
ExecStart=sh /run/place/tests/systemd/jobs.sh
UNIT
ln -s ../jobs.service "$units/machine.target.wants"

# busybox's switch_root would empty the old root, which is the host's.
cd "$root"
pivot_root . mnt
cd /
umount -l /mnt
# As in a container, systemd leaves devices, modules and clocks alone, which saves seconds.
exec env -i PATH="$PATH" LANG=C.UTF-8 \
    container=machine /lib/systemd/systemd --system < /dev/console > /dev/console 2>&1
