#!/bin/sh
# Healthy: no check of `edgemed doctor` is wrong; where EDGEMED_URL names a daemon, it says that it is ready; and where
# EDGEMED_BUNDLE names a bundle, its hashes and golden vectors come out right. What is wrong is said on stderr, which
# `docker inspect` keeps.
#
# usage: health.sh
set -eu
edgemed doctor --json >/dev/null
if [ -n "${EDGEMED_URL:-}" ]; then
  "$(dirname "$(readlink -f "$(command -v edgemed)")")/python" - "$EDGEMED_URL/v2/health/ready" <<'PYTHON'
import sys
from urllib.error import HTTPError
from urllib.request import urlopen

try:
    urlopen(sys.argv[1], timeout=20).read()
except HTTPError as error:
    sys.exit(error.read().decode(errors="replace"))
except OSError as error:
    sys.exit(f"{sys.argv[1]} does not answer: {error}")
PYTHON
fi
if [ -n "${EDGEMED_BUNDLE:-}" ]; then edgemed verify "$EDGEMED_BUNDLE" --json >/dev/null; fi
