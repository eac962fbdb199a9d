"""The fixture `fakecuda`: real pycuda on the host-only libcuda, as new for each test.

    def test_something(fakecuda):
        fakecuda.delay("kernel", us=500)
        cuda = open_cuda()
        with cuda.arena() as arena:
            ...

After the test nothing may be alive, no context pushed and no race found; a test that means to leave something calls
`fakecuda.forgive()`. With EDGEMED_CUDA=driver the tests run on NVIDIA's driver instead (see `real_driver`).
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from edgemed.runtime import cuda, driver
from tests.runtime import real_driver
from tests.runtime.fakecuda import fetch, handle


@pytest.fixture
def fakecuda() -> Iterator[handle.FakeCudaHandle | real_driver.RealDriver]:
    if real_driver.wanted():
        forget()
        yield real_driver.RealDriver()
        return
    if reason := fetch.unsupported():
        pytest.skip(reason)
    fake = handle.activate()
    forget()
    fake.fresh()
    yield fake
    gc.collect()
    races, live, forgiven = fake.races(), fake.live(), fake.forgiven
    forget()
    fake.fresh()
    assert forgiven or not races
    assert forgiven or not live


def forget() -> None:
    """A process opens the GPU once; tests do it anew, as other devices and after faults."""
    cuda._cuda = None
    driver.health = driver.Health()
