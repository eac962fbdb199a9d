"""Streams from the network (RTSP and others), by FFmpeg through PyAV, with as little delay as they allow."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any, Final

from edgemed.base.errors import DeviceStateError, EdgemedError, InputError
from edgemed.runtime.frames import Frame
from edgemed.runtime.sources.base import SECOND, FrameSource
from edgemed.runtime.sources.ffmpeg import Converter, decoded, open_container, reason, require_av, video_stream

SCHEMES: Final = ("rtsp", "rtsps", "rtmp", "rtmps", "srt", "tcp", "udp", "http", "https")

_FORMATS = "rtsp,rtp,sdp,mpegts,flv,live_flv,mpjpeg,mjpeg,matroska,webm,mov,mp4,h264,hevc,mpegvideo,asf,ogg"
# nothing on this machine is ever opened, whatever the other side sends
_PROTOCOLS = "rtsp,rtsps,rtp,rtmp,rtmps,srt,tcp,udp,tls,http,https,httpproxy,srtp"
_OPTIONS = {
    "protocol_whitelist": _PROTOCOLS,
    "format_whitelist": _FORMATS,
    "rtsp_transport": "tcp",  # over UDP, lost packets show as torn pictures
    "fflags": "nobuffer",
    "flags": "low_delay",
    "max_delay": "100000",  # microseconds to wait for packets out of order
    "reorder_queue_size": "0",
    "analyzeduration": "1000000",  # microseconds of the stream that are looked at before its first picture is given
}
_FIRST_PAUSE_NS = SECOND // 4
_LONGEST_PAUSE_NS = 8 * SECOND
# up to the last @ before the path, as FFmpeg reads it; where there is none, a slash that should have been written %2F
_PASSWORD = re.compile(r"(//[^/?#@:\s]*):(?:[^/?#\s]*@|(?!\d+(?:[/?#\s]|$))\S*?@)")
# of cameras that take it in the query, of SRT, and of GStreamer's elements
_SECRET = re.compile(
    r"(?i)((?<![a-z])(?:pass(?:word|wd|phrase)?|pwd?|user-pw|token|secret|auth)\s*=\s*)"
    r"(\"[^\"]*\"|[^\s&;!]+)"
)


class NetworkSource(FrameSource):
    """The pictures of a network stream. Their times are those of arrival: the sender's clock is not ours.

    A connection that breaks is opened again, after 0.25 s, 0.5 s, … 8 s, for as long as `give_up_s` without a picture.
    Damaged pictures are counted as lost; those that were sent while nothing was connected cannot be.

    Args:
        url: of one of `SCHEMES`.
        timeout_s: without data, after which the connection counts as broken. A `close` from another thread is seen
            within this time.
        give_up_s: without a picture, after which the stream is given up.

    Attributes:
        reconnects: how often the connection was opened again.
    """

    def __init__(self, url: str, *, timeout_s: float = 5.0, give_up_s: float = 30.0) -> None:
        super().__init__(live=True)
        self._url = url
        self._name = without_password(url)
        self._timeout_s = timeout_s
        self._give_up_ns = round(give_up_s * SECOND)
        self._container: Any = None
        self._stream: Any = None
        self.reconnects = 0

    def _open(self) -> None:
        """Connect. A first connection that fails is not tried again: the address may be wrong."""
        try:
            self._connect()
        except OSError as error:
            raise _unreachable(self._name, error) from error

    def _connect(self) -> None:
        timeout = (self._timeout_s, self._timeout_s)
        since_ns = time.monotonic_ns()
        try:
            self._container = open_container(self._url, _OPTIONS, timeout, self._name)
        except InputError as error:
            if time.monotonic_ns() - since_ns < self._timeout_s * SECOND:
                raise
            # FFmpeg's RTSP tells of a silent server as of nonsense
            raise TimeoutError(f"no answer for {self._timeout_s:g} s") from error
        self._stream = video_stream(self._container, self._name)

    def _frames(self) -> Iterator[Frame]:
        broken: Exception | None = None
        while not self._closing.is_set():
            if self._container is None and not self._reconnect(broken):
                return
            broken = yield from self._connected()
            self._disconnect()

    def _connected(self) -> Any:
        """Frames until the connection breaks; gives why."""
        av = require_av()
        converter = Converter(self._name)
        packets = self._container.demux(self._stream)
        while not self._closing.is_set():
            try:
                packet = next(packets)
                arrived_ns = time.monotonic_ns()
            except StopIteration:
                return EOFError("the other side ended the stream")
            except (av.error.FFmpegError, OSError) as error:
                return error
            for picture in decoded(packet):
                pixels = converter.pixels(picture)
                if pixels is None:
                    self._lost += 1
                else:
                    yield self._frame(pixels, arrived_ns)
        return None

    def _reconnect(self, broken: Exception | None) -> bool:
        """Open the connection again; `False` when the source is closed meanwhile.

        Raises:
            DeviceStateError: it does not come back.
        """
        since_ns, pause_ns = time.monotonic_ns(), _FIRST_PAUSE_NS
        while self._until(time.monotonic_ns() + pause_ns):
            try:
                self._connect()
            except (OSError, EdgemedError) as error:
                self._disconnect()
                broken = error
            else:
                self.reconnects += 1
                return True
            pause_ns = min(2 * pause_ns, _LONGEST_PAUSE_NS)
            if time.monotonic_ns() + pause_ns - since_ns > self._give_up_ns:
                raise DeviceStateError(
                    f"{self._name} broke off, and did not come back in {self._give_up_ns / SECOND:g} s"
                    f"{f' ({reason(broken)})' if broken is not None else ''}.",
                    "Check the camera and the network between.",
                )
        return False

    def _disconnect(self) -> None:
        container, self._container, self._stream = self._container, None, None
        if container is not None:
            container.close()

    def _release(self) -> None:
        self._disconnect()


def without_password(url: str) -> str:
    """An address, or a pipeline, as it may be shown."""
    return _SECRET.sub(r"\1***", _PASSWORD.sub(r"\1:***@", url))


def _unreachable(name: str, error: OSError) -> EdgemedError:
    if isinstance(error, TimeoutError):
        return DeviceStateError(
            f"{name} does not answer.", "Check the address, the network, and that the camera is on."
        )
    if isinstance(error, ConnectionRefusedError):
        return DeviceStateError(
            f"{name} refuses the connection.", "Check the port, and that the camera's server is on."
        )
    if isinstance(error, PermissionError):
        return InputError(f"{name} wants other credentials.", "Give them: rtsp://USER:PASSWORD@HOST/PATH.")
    return DeviceStateError(f"{name} cannot be reached: {reason(error)}.", "Check the address and the network.")
