#!/bin/sh
# Healthy: no check of `edgemed doctor` is wrong, and where EDGEMED_BUNDLE names a bundle, its hashes and golden vectors
# come out right. What is wrong is said on stderr, which `docker inspect` keeps.
#
# usage: health.sh
set -eu
edgemed doctor --json >/dev/null
if [ -n "${EDGEMED_BUNDLE:-}" ]; then edgemed verify "$EDGEMED_BUNDLE" --json >/dev/null; fi
