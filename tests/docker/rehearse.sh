#!/bin/sh
# Inside fresh mount, pid, net, ipc and uts namespaces: make ROOT look like a running container, then run a command in it.
#
# usage: rehearse.sh assemble ROOT COMMAND...            as root, ROOT writable: a RUN line of a build
#        rehearse.sh run ROOT STATE BUNDLES COMMAND...   as the image's user, ROOT read-only: `docker run --read-only`
set -eu
mode=$1 root=$2
shift 2

mount --bind "$root" "$root"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
for node in null zero full random urandom; do
  [ -e "$root/dev/$node" ] || touch "$root/dev/$node"
  mount --bind "/dev/$node" "$root/dev/$node"
done
if [ "$mode" = assemble ]; then
  exec chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root "$@"
fi

state=$1 bundles=$2
shift 2
mount --bind "$state" "$root/var/lib/edgemed"
mount --bind "$bundles" "$root/bundles"
mount -o remount,bind,ro "$root/bundles"
mount -o remount,bind,ro "$root"
mount -t tmpfs -o size=64m,mode=1777,nosuid,nodev tmpfs "$root/tmp"
exec chroot "$root" /usr/bin/setpriv --reuid 10001 --regid 10001 --groups 44 --bounding-set=-all --inh-caps=-all \
  --ambient-caps=-all --no-new-privs /usr/bin/env -i "$@"
