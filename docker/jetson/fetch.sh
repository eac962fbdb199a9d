#!/bin/sh
# Fetch what is not compiled here: build tools into a virtual environment, and the board's wheels into a folder.
# Every file is held to its hash; a package without a wheel for this machine is an error, not a compilation.
#
# usage: fetch.sh TOOLS REQUIREMENTS ENVIRONMENT WHEELS
set -eu
tools=$1 requirements=$2 environment=$3 wheels=$4

"${PYTHON:-python3}" -m venv "$environment"
pip() { "$environment/bin/python" -m pip --quiet --no-cache-dir --disable-pip-version-check "$@"; }

pip install --require-hashes --no-deps --only-binary :all: --requirement "$tools"
mkdir -p "$wheels"
pip download --require-hashes --no-deps --only-binary :all: --dest "$wheels" --requirement "$requirements"
