"""Pipelines of GStreamer, where it and its binding for Python are installed: CSI cameras on Jetson, and much else.

GStreamer is bound to the system's Python (Debian and JetPack: `python3-gi`), so a virtual environment must be made with
`--system-site-packages` to see it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgemed.base.errors import DeviceStateError, InputError, MissingSoftwareError
from edgemed.base.text import printable
from edgemed.runtime.frames import Frame
from edgemed.runtime.sources.base import SECOND, FrameSource
from edgemed.runtime.sources.network import without_password

# of a live pipeline the newest picture waits for us, and older ones are dropped; nothing waits for a time to show it
_SINK = "appsink name=edgemed max-buffers=1 sync=false enable-last-sample=false"
_CAPS = "video/x-raw,format=(string){RGB,GRAY8,GRAY16_LE}"
_LOOK_NS = SECOND // 10  # between two looks at whether the source was closed
_OLDEST_NS = 60 * SECOND  # a picture that claims to be older has no time of capture
_FORMATS: Final = {"RGB": (3, np.uint8), "GRAY8": (1, np.uint8), "GRAY16_LE": (1, np.uint16)}


class GstSource(FrameSource):
    """The pictures of a pipeline.

    Args:
        pipeline: in the words of `gst-launch-1.0`, up to where the pictures are; converting and the sink are added.
        live: `None` lets the pipeline say. Where it is live, a picture that is not taken in time is dropped for the
            next; otherwise the pipeline waits.
        timeout_s: without a picture, after which the pipeline counts as dead.
    """

    def __init__(self, pipeline: str, *, live: bool | None = None, timeout_s: float = 5.0) -> None:
        super().__init__(live=live is not False)
        if not pipeline.strip():
            raise InputError("The pipeline is empty.", "Give one: gst:videotestsrc is-live=true.")
        self._text = pipeline.strip()
        self._ask_live = live
        self._timeout_ns = round(timeout_s * SECOND)
        self._gst: Any = None
        self._video: Any = None
        self._pipeline: Any = None
        self._sink: Any = None
        self._last_offset: int | None = None
        self._stamps = False

    def _open(self) -> None:
        self._gst, self._video = _require_gst()
        gst = self._gst
        try:
            self._pipeline = gst.parse_launch(f"{self._text} ! videoconvert ! {_CAPS} ! {_SINK}")
        except self._gst_error() as error:
            raise InputError(f"GStreamer does not take the pipeline: {_words(error)}.", _TRY) from error
        self._sink = self._pipeline.get_by_name("edgemed")
        if self._sink is None or not hasattr(self._sink.props, "max_buffers"):
            raise InputError("The pipeline has an element called edgemed of its own.", "Call it something else.")
        self._move(gst.State.PAUSED)
        change, *_ = self._pipeline.get_state(self._timeout_ns)
        if change == gst.StateChangeReturn.FAILURE:
            raise self._failure() or DeviceStateError("The pipeline does not start.", _TRY)
        self._stamps = change == gst.StateChangeReturn.NO_PREROLL  # a live source gives nothing while it is paused
        if self._ask_live is None:
            self._live = self._stamps
        self._sink.props.drop = self._live
        self._move(gst.State.PLAYING)

    def _move(self, state: Any) -> None:
        if self._pipeline.set_state(state) == self._gst.StateChangeReturn.FAILURE:
            raise self._failure() or DeviceStateError("The pipeline does not start.", _TRY)

    def _gst_error(self) -> type[Exception]:
        from gi.repository import GLib

        kind: type[Exception] = GLib.Error
        return kind

    def _frames(self) -> Iterator[Frame]:
        last_ns = time.monotonic_ns()
        while not self._closing.is_set():
            sample = self._sink.emit("try-pull-sample", _LOOK_NS)
            if sample is not None:
                yield self._taken(sample)
                last_ns = time.monotonic_ns()
                continue
            failure = self._failure()
            if failure is not None:
                raise failure
            if self._sink.props.eos:
                return
            if time.monotonic_ns() - last_ns > self._timeout_ns:
                raise DeviceStateError(f"The pipeline gave no picture for {self._timeout_ns / SECOND:g} s.", _TRY)

    def _taken(self, sample: Any) -> Frame:
        buffer = sample.get_buffer()
        captured_ns = self._time(buffer, sample.get_segment())
        offset = buffer.offset if 0 <= buffer.offset < 2**63 else None  # GST_BUFFER_OFFSET_NONE is 2**64 - 1
        if offset is not None:
            if self._last_offset is not None and offset > self._last_offset:
                self._lost += offset - self._last_offset - 1
            self._last_offset = offset
        return self._frame(self._pixels(sample, buffer), captured_ns, sequence=offset)

    def _time(self, buffer: Any, segment: Any) -> int:
        """Of the capture, where the pipeline is live and its clock is the one of `time.monotonic_ns`; else now."""
        gst, now_ns = self._gst, time.monotonic_ns()
        clock = self._pipeline.get_clock()
        if not self._stamps or clock is None or buffer.pts == gst.CLOCK_TIME_NONE:
            return now_ns
        monotonic = getattr(clock.props, "clock_type", None) == gst.ClockType.MONOTONIC
        running_ns = segment.to_running_time(gst.Format.TIME, buffer.pts)
        if not monotonic or running_ns == gst.CLOCK_TIME_NONE:
            return now_ns
        captured_ns = int(self._pipeline.get_base_time() + running_ns)
        return captured_ns if 0 <= now_ns - captured_ns <= _OLDEST_NS else now_ns

    def _pixels(self, sample: Any, buffer: Any) -> NDArray[Any]:
        caps = sample.get_caps().get_structure(0)
        channels, dtype = _FORMATS[caps.get_string("format")]
        rows, columns = caps.get_value("height"), caps.get_value("width")
        meta = self._video.buffer_get_video_meta(buffer)
        info = self._video.VideoInfo.new_from_caps(sample.get_caps())
        stride = meta.stride[0] if meta is not None else info.stride[0]
        across = columns * channels * np.dtype(dtype).itemsize
        ok, mapped = buffer.map(self._gst.MapFlags.READ)
        if not ok:
            raise DeviceStateError("A picture of the pipeline cannot be read.", "Add nvvidconv or videoconvert to it.")
        try:
            raw = np.frombuffer(mapped.data, np.uint8)
            if raw.size < (rows - 1) * stride + across:
                raise DeviceStateError("The pipeline gave less than a picture.", _TRY)
            plane = np.lib.stride_tricks.as_strided(raw, (rows, across), (stride, 1), writeable=False).copy()
        finally:
            buffer.unmap(mapped)
        return plane.reshape(rows, columns, 3) if channels == 3 else plane.view(dtype)

    def _failure(self) -> DeviceStateError | None:
        """What an element complained of, if any."""
        bus = self._pipeline.get_bus()
        message = bus.pop_filtered(self._gst.MessageType.ERROR)
        if message is None:
            return None
        error, detail = message.parse_error()
        lines = [line for line in (detail or "").splitlines() if line.strip()]
        more = f" ({printable(without_password(lines[-1].strip()))})" if lines else ""
        return DeviceStateError(f"{printable(message.src.get_name())}: {_words(error)}{more}.", _TRY)

    def _stop(self) -> None:
        pipeline, self._pipeline, self._sink = self._pipeline, None, None
        if pipeline is not None:
            pipeline.set_state(self._gst.State.NULL)

    def _release(self) -> None:
        self._stop()


_TRY = "Try it by itself: gst-launch-1.0 -v PIPELINE ! fakesink."


def _words(error: Any) -> str:
    """GStreamer's words; they may hold the address, and so a password."""
    return printable(without_password(str(getattr(error, "message", error)))).rstrip(".")


def _require_gst() -> tuple[Any, Any]:
    try:
        import gi

        gi.require_version("Gst", "1.0")
        gi.require_version("GstVideo", "1.0")
        from gi.repository import Gst, GstVideo
    except (ImportError, ValueError) as error:
        raise MissingSoftwareError(
            f"GStreamer's binding for Python is needed for gst: sources ({error}).",
            "apt install python3-gi gir1.2-gst-plugins-base-1.0 gstreamer1.0-plugins-good, and make the virtual "
            "environment of the system's Python with --system-site-packages.",
        ) from error
    if not Gst.is_initialized():
        Gst.init(None)
    return Gst, GstVideo
