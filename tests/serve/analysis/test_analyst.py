"""From a queued task to results in the spool."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgemed.serve.daemon import Daemon
from edgemed.serve.services import Services
from tests.serve import kit
from tests.serve.analysis import bench


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    root: Path = tmp_path_factory.mktemp("bedside")
    with kit.running(kit.bedside(root)) as running:
        yield running


@pytest.fixture
def services(daemon: Daemon) -> Services:
    return daemon.services


def test_an_image_is_answered(services: Services) -> None:
    task = bench.queue(services, kit.image(level=200))
    (row,) = bench.ended(services, task)
    assert (row["state"], row["reason"], row["tries"]) == ("delivered", "", 1)
    assert bench.document(services, task)["readings"][0]["scores"][1]["found"] is True
