#!/bin/sh
# Build pycuda's wheel against the stub of the CUDA driver: the driver itself is not there while an image is built.
#
# Which symbols the wheel asks of the driver follows from the headers: those of CUDA 13 ask for two that older drivers
# lack (cuCtxCreate_v4, cuEventElapsedTime_v2). So it is built with the oldest headers of its JetPack generation, and
# newer drivers, which keep old names, load it too. The stub must not be on the library path of any image that runs.
#
# usage: build-pycuda.sh REQUIREMENT ENVIRONMENT WHEELS      (CUDA_ROOT, default /usr/local/cuda)
set -eu
requirement=$1 environment=$2 wheels=$3
root=${CUDA_ROOT:-/usr/local/cuda}

stubs=""
for folder in "$root/lib64/stubs" "$root/targets/aarch64-linux/lib/stubs" "$root/targets/sbsa-linux/lib/stubs"; do
  if [ -e "$folder/libcuda.so" ]; then stubs=$folder; break; fi
done
[ -n "$stubs" ] || { echo "There is no stub of libcuda.so below $root: take a -devel image of CUDA." >&2; exit 4; }

# pycuda is told paths by a file in the home folder alone; curand (100 MB) is not used by edgemed
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
cat > "$home/.aksetup-defaults.py" <<CONFIG
CUDA_ROOT = "$root"
CUDA_ENABLE_CURAND = False
CUDADRV_LIB_DIR = ["$stubs"]
CONFIG
HOME="$home" CXXFLAGS="-O2 -w" LDFLAGS="-s" "$environment/bin/python" -m pip --quiet --no-cache-dir wheel \
  --require-hashes --no-deps --no-binary pycuda --no-build-isolation --wheel-dir "$wheels" --requirement "$requirement"

# a stub that defines nothing is dropped by the linker, and the wheel would fail on import only
"$environment/bin/python" - "$wheels" <<'CHECK'
import pathlib, sys, zipfile

(wheel,) = pathlib.Path(sys.argv[1]).glob("pycuda-*.whl")
names = zipfile.ZipFile(wheel).namelist()
(driver,) = (name for name in names if "_driver" in name and name.endswith(".so"))
data = zipfile.ZipFile(wheel).read(driver)
if b"libcuda.so.1\0" not in data or b"libcurand" in data:
    sys.exit(f"{wheel.name} is not linked as it should be: libcuda.so.1, and no libcurand")
print(f"{wheel.name}: linked to libcuda.so.1")
CHECK
