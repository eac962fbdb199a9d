"""A conversion process that outlives its model: importing TensorFlow once is enough for most tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edgemed.convert import process


class SharedChild(process._Child):
    """The real child; only its end is put off."""

    def kill(self) -> None:
        if self.process.poll() is not None:
            super().kill()

    def end(self) -> None:
        super().kill()


@pytest.fixture(scope="session")
def one_child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedChild]:
    """The process itself; a folder whose models want an environment overrides this, and asks for them first."""
    child = SharedChild(tmp_path_factory.mktemp("child"))
    yield child
    child.end()


@pytest.fixture
def shared_child(one_child: SharedChild, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `KerasModel` use one real child process again and again."""
    monkeypatch.setattr(process, "_Child", lambda workdir: one_child)
