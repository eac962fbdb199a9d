#!/bin/sh
# The user and the folders of the image that runs. State is the one place that this user may write to.
#
# usage: prepare.sh
set -eu
user=edgemed uid=10001 state=/var/lib/edgemed

groupadd --gid "$uid" "$user"
useradd --uid "$uid" --gid "$uid" --no-create-home --home-dir "$state" --shell /usr/sbin/nologin "$user"
# nodes of the GPU and of cameras belong to `video`, 44 on every Debian and Ubuntu; the number of `render` is the
# host's own choice, so compose.yaml adds it
usermod --append --groups video "$user"
mkdir -p "$state" /bundles /run/edgemed
chown "$uid:$uid" "$state"
chmod 0750 "$state"
