"""The error recorder and the output allocator: over the fake here, and over the bases of every real release."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from edgemed.engine.bridge import version_number
from edgemed.engine.output import GrownOutput, make_output_allocator
from edgemed.engine.recorder import ErrorBook, Reported, make_recorder
from tests.engine import fetch_bindings
from tests.engine.conftest import CACHE, ROWS
from tests.engine.engines import Memory
from tests.engine.fake_runtime import EngineScript
from tests.engine.fake_tensorrt import Script, make_fake


def test_a_recorder_keeps_the_first_errors_and_says_that_there_were_more() -> None:
    trt: Any = make_fake("10.3.0", Script(), EngineScript())
    book = ErrorBook()
    recorder = make_recorder(trt, book)
    assert (recorder.num_errors(), recorder.has_overflowed(), bool(book)) == (0, False, False)
    for number in range(40):
        assert recorder.report_error(trt.ErrorCodeTRT.FAILED_EXECUTION, f"error {number}")
    assert recorder.num_errors() == recorder.get_num_errors() == 32
    assert recorder.has_overflowed()
    assert recorder.get_error_code(0) == trt.ErrorCodeTRT.FAILED_EXECUTION
    assert recorder.get_error_desc(31) == "error 31"
    for beyond in (32, -1):  # as NvInferRuntimeBase.h asks
        assert recorder.get_error_code(beyond) == trt.ErrorCodeTRT.UNSPECIFIED_ERROR
        assert recorder.get_error_desc(beyond) == ""
    recorder.clear()
    assert (recorder.num_errors(), recorder.has_overflowed()) == (0, False)


def test_a_code_that_the_bindings_do_not_know_is_unspecified() -> None:
    trt: Any = make_fake("10.3.0", Script(), EngineScript())
    book = ErrorBook()
    book.report("???", "of a newer TensorRT")
    assert make_recorder(trt, book).get_error_code(0) == trt.ErrorCodeTRT.UNSPECIFIED_ERROR


def test_no_error_is_lost_between_threads() -> None:
    book = ErrorBook()
    taken: list[Reported] = []

    def report(place: int) -> None:
        for number in range(1000):
            book.report("INTERNAL_ERROR", f"{place} {number}")
            if number % 20 == 0:
                with lock:
                    taken.extend(book.take())

    lock = threading.Lock()
    threads = [threading.Thread(target=report, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken.extend(book.take())
    assert len(set(taken)) == len(taken)
    assert len(book) == 0


def test_memory_of_an_output_is_reused() -> None:
    memory = Memory()
    output = GrownOutput(memory.calls())
    allocator = make_output_allocator(make_fake("10.3.0", Script(), EngineScript()), output)
    first = allocator.reallocate_output("y", 0, 100, 256)
    assert allocator.reallocate_output_async("y", first, 80, 256, 7) == first
    assert output.shape is None  # not known before it is told
    allocator.notify_shape("y", (5, 4))
    assert (output.address, output.shape) == (first, (5, 4))
    allocator.notify_shape("y", (-1, 4))
    assert output.shape is None
    output.release()
    output.release()
    assert memory.log == ["+100", "-100"]


# the methods of the bases are C++: they call the virtual function, whose trampoline looks up ours by name
OVER_REAL_BASES = """
import json
from edgemed.engine.output import DeviceCalls, GrownOutput, make_output_allocator
from edgemed.engine.recorder import ErrorBook, make_recorder
from edgemed.engine.tensors import dtype_name, varying
book = ErrorBook()
recorder = make_recorder(trt, book)
base = trt.IErrorRecorder
said = {"fatal": base.report_error(recorder, trt.ErrorCodeTRT.FAILED_ALLOCATION, "no memory")}
for number in range(40):
    base.report_error(recorder, trt.ErrorCodeTRT.INTERNAL_ERROR, f"error {number}")
said["errors"] = base.num_errors(recorder)
said["first"] = [base.get_error_code(recorder, 0).name, base.get_error_desc(recorder, 0)]
said["beyond"] = [base.get_error_code(recorder, 99).name, base.get_error_desc(recorder, 99)]
said["overflowed"] = base.has_overflowed(recorder)
base.clear(recorder)
said["cleared"] = [base.num_errors(recorder), base.has_overflowed(recorder)]
addresses = iter([0x10000, 0x20000])
output = GrownOutput(DeviceCalls(0, print, lambda size: next(addresses), lambda address: None))
allocator = make_output_allocator(trt, output)
assert isinstance(allocator, trt.IOutputAllocator)
said["address"] = allocator.reallocate_output_async("y", 0, 100, 256, 1)
if hasattr(trt.IOutputAllocator, "notify_shape"):  # bound in 8.6 alone: through C++
    trt.IOutputAllocator.notify_shape(allocator, "y", (4, 2))
else:
    allocator.notify_shape("y", trt.Dims([4, 2]))
said["shape"] = output.shape
said["dtypes"] = {name: dtype_name(value) for name, value in trt.DataType.__members__.items()}
said["varying"] = varying(trt.Dims([-1, 3]))
print(json.dumps(said))
"""


@ROWS
def test_our_classes_are_called_through_the_real_bases(row: fetch_bindings.Bindings) -> None:
    if row.unsupported:
        pytest.skip(row.unsupported)
    done = fetch_bindings.run_over_stubs(row, fetch_bindings.fetch(row, CACHE), OVER_REAL_BASES, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr  # where an exception of ours ends up
    said = json.loads(done.stdout)
    assert said["fatal"] is True
    assert said["errors"] == 32
    assert said["first"] == ["FAILED_ALLOCATION", "no memory"]
    assert said["beyond"] == ["UNSPECIFIED_ERROR", ""]
    assert said["overflowed"] is True
    assert said["cleared"] == [0, False]
    assert said["address"] == 0x10000
    assert said["shape"] == [4, 2]
    assert said["varying"] == [None, 3]
    expected = {"FLOAT": "float32", "HALF": "float16", "INT8": "int8", "INT32": "int32", "BOOL": "bool", "FP8": "fp8"}
    expected |= {"UINT8": "uint8"}
    if version_number(row.version) >= (10,):
        expected |= {"BF16": "bfloat16", "INT64": "int64", "INT4": "int4"}
    assert expected.items() <= said["dtypes"].items()
