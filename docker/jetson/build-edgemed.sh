#!/bin/sh
# Build edgemed's own wheel with the pinned tools; nothing is fetched.
#
# usage: build-edgemed.sh SOURCE ENVIRONMENT WHEELS
set -eu
source=$1 environment=$2 wheels=$3

"$environment/bin/python" -m pip --quiet --no-cache-dir --disable-pip-version-check wheel \
  --no-index --no-deps --no-build-isolation --wheel-dir "$wheels" "$source"
