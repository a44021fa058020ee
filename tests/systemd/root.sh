# To be sourced with `root` set to a directory: makes a machine's root of an overlay of the host's.
# None of the host's own services; a target that is reached as soon as D-Bus can be.

units=$root/etc/systemd/system
rm -rf "$units"/*.wants "$units"/*.requires
cat > "$units/machine.target" <<UNIT
[Unit]
Requires=basic.target dbus.socket
After=basic.target dbus.socket
AllowIsolate=yes
UNIT
ln -sf machine.target "$units/default.target"
: > "$root/etc/fstab"
# An empty identity would mean the first boot, which enables every service there is.
tr -d - < /proc/sys/kernel/random/uuid > "$root/etc/machine-id"
mkdir -p "$root/etc/systemd/journald.conf.d"
printf '[Journal]\nStorage=volatile\n' > "$root/etc/systemd/journald.conf.d/machine.conf"
