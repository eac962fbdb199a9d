"""A conversion process that outlives its model: importing TensorFlow once is enough for most tests."""

from __future__ import annotations

from edgemed.convert import process


class SharedChild(process._Child):
    """The real child; only its end is put off."""

    def kill(self) -> None:
        if self.process.poll() is not None:
            super().kill()

    def end(self) -> None:
        super().kill()
