"""From what TensorRT says to an error that says what to do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from edgemed.base.errors import DeviceStateError, EdgemedError, GpuError, GpuMemoryError, IntegrityError
from edgemed.engine.bridge import Bridge, one_line

NO_MEMORY: Final = (
    "out of memory",
    "outofmemory",
    "std::bad_alloc",
    "insufficient memory",
    "cudaerrormemoryallocation",
)
NO_GPU: Final = ("no cuda-capable device", "cuda initialization failure", "cuda driver version is insufficient")
ANOTHER_PLACE: Final = ("not compatible with this version", "incompatible device", "expecting compute", "version tag")

# Errors after which "any further CUDA work will return the same error" (driver_types.h), and, from the same file, those
# that leave no context to work with: the text that cudaGetErrorString has for each name of cudaError.
STICKY: Final = {
    "cudaErrorECCUncorrectable": "uncorrectable ECC error encountered",
    "cudaErrorNvlinkUncorrectable": "uncorrectable NVLink error detected during the execution",
    "cudaErrorContained": "Invalid access of peer GPU memory over nvlink or a hardware error",
    "cudaErrorIllegalAddress": "an illegal memory access was encountered",
    "cudaErrorLaunchTimeout": "the launch timed out and was terminated",
    "cudaErrorContextIsDestroyed": "context is destroyed",
    "cudaErrorAssert": "device-side assert triggered",
    "cudaErrorHardwareStackError": "hardware stack error",
    "cudaErrorIllegalInstruction": "an illegal instruction was encountered",
    "cudaErrorMisalignedAddress": "misaligned address",
    "cudaErrorInvalidAddressSpace": "operation not supported on global/shared address space",
    "cudaErrorInvalidPc": "invalid program counter",
    "cudaErrorLaunchFailure": "unspecified launch failure",
    "cudaErrorTensorMemoryLeak": "tensor memory not completely freed",
    "cudaErrorMpsClientTerminated": "the MPS client has been terminated by the server",
    "cudaErrorExternalDevice": "an async error has occured in external entity outside of CUDA",
}
_STICKY_SIGNS = tuple(sign.lower() for pair in STICKY.items() for sign in pair)
_REBUILD = "Build the engine for this machine: edgemed build NAME.edgemed --force"


def gpu_error(bridge: Bridge, doing: str, codes: Iterable[str], messages: Iterable[str]) -> GpuError:
    """The error of a call that failed on the device.

    Args:
        bridge: whose words these are.
        doing: what it could not do; completes "tensorrt 10.3.0 could not ...".
        codes: names of `ErrorCodeTRT`.
        messages: the first one is the reason.
    """
    messages = list(messages)
    what = f"{bridge.flavour} {bridge.version} could not {doing}: {_reason(messages)}."
    if _speaks_of(messages, _STICKY_SIGNS):
        return GpuError(what, "Nothing on this GPU can be trusted any more: end the process.", sticky=True)
    if "FAILED_ALLOCATION" in codes or _speaks_of(messages, NO_MEMORY):
        return GpuMemoryError(what, "Close other programs, or take fewer slots, fewer contexts or smaller batches.")
    return GpuError(what, "Run again with --debug for TensorRT's full log.")


def load_error(bridge: Bridge, messages: Iterable[str]) -> EdgemedError:
    """The error of a plan that TensorRT would not deserialise although its hash was right."""
    messages = list(messages)
    what = f"{bridge.flavour} {bridge.version} cannot load the plan: {_reason(messages)}."
    if _speaks_of(messages, (*NO_MEMORY, *_STICKY_SIGNS)):
        return gpu_error(bridge, "load the plan", (), messages)
    if _speaks_of(messages, NO_GPU):
        return DeviceStateError(what, "See that the NVIDIA driver works.")
    if _speaks_of(messages, ANOTHER_PLACE):
        return DeviceStateError(what, _REBUILD)
    return IntegrityError(what, _REBUILD)


def _reason(messages: list[str]) -> str:
    return one_line(messages[0]) if messages else "it gives no reason"


def _speaks_of(messages: list[str], signs: Iterable[str]) -> bool:
    text = "\n".join(messages).lower()
    return any(sign in text for sign in signs)
