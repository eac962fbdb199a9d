#!/bin/sh
# What an image that runs at the bedside must not hold, and what it must be able to do. The build fails otherwise.
#
# usage: check.sh
set -eu
fail() { echo "This image is not fit to run: $1" >&2; exit 1; }

for tool in cc c++ gcc g++ clang clang++ ld as make cmake nvcc ptxas; do
  if command -v "$tool" >/dev/null; then fail "it holds a compiler, $(command -v "$tool")."; fi
done
for folder in /usr/local/cuda/lib64/stubs /root/.cache/pip /opt/edgemed/lib64/stubs; do
  if [ -e "$folder" ]; then fail "it holds $folder."; fi
done
/opt/edgemed/bin/python - <<'CHECK' || fail "see above."
import importlib.util, sys

refused = ("tensorflow", "keras", "tf_keras", "tf2onnx", "torch", "pytest", "hatchling")
found = [name for name in refused if importlib.util.find_spec(name) is not None]
missing = [name for name in ("edgemed", "numpy", "onnxruntime", "pydicom") if importlib.util.find_spec(name) is None]
if found or missing:
    sys.exit(f"found {found}, missing {missing}")
CHECK
/opt/edgemed/bin/edgemed --version >/dev/null || fail "edgemed does not start."
