#!/bin/sh
# Put edgemed into a virtual environment, from a folder of wheels: no index is asked, nothing is compiled.
#
# The environment sees the system's packages, because TensorRT's bindings are Debian's; but nothing that edgemed needs is
# left to them (--ignore-installed), since the image that runs does not have them. pip takes itself out at the end.
#
# usage: install.sh WHEELS REQUIREMENTS TARGET
set -eu
wheels=$1 requirements=$2 target=$3

python3 -m venv --system-site-packages "$target"
pip() { "$target/bin/python" -m pip --quiet --no-cache-dir --disable-pip-version-check "$@"; }

pip install --no-index --find-links "$wheels" --require-hashes --no-deps --ignore-installed --only-binary :all: \
  --requirement "$requirements"
for wheel in "$wheels"/edgemed-*.whl "$wheels"/pycuda-*.whl; do
  # built here a moment ago, so there is no hash to hold them to; where CUDA is not, pycuda is not either
  if [ -e "$wheel" ]; then pip install --no-index --no-deps --ignore-installed "$wheel"; fi
done
"$target/bin/edgemed" --version
pip uninstall --yes setuptools 2>/dev/null || true
pip uninstall --yes pip
rm -rf "$target/share" "$target/include"
