"""Addresses: what they name, and that none is too strange to be answered."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemed.base.errors import EdgemedError, InputError, UsageError
from edgemed.imaging.open import open_image
from edgemed.runtime.sources.files import ArraySource, FileSource
from edgemed.runtime.sources.gstreamer import GstSource
from edgemed.runtime.sources.network import NetworkSource
from edgemed.runtime.sources.open import Address, open_source, parse_address
from edgemed.runtime.sources.v4l2 import V4l2Source
from edgemed.runtime.sources.video import VideoSource

KINDS = [
    ("/dev/video0", Address("v4l2", "/dev/video0"), V4l2Source),
    ("v4l2:/dev/v4l/by-id/camera", Address("v4l2", "/dev/v4l/by-id/camera"), V4l2Source),
    (
        "/dev/video2?size=640x480&fps=29.97&format=YUYV&buffers=4",
        Address("v4l2", "/dev/video2", (("size", "640x480"), ("fps", "29.97"), ("format", "YUYV"), ("buffers", "4"))),
        V4l2Source,
    ),
    ("rtsp://host/x?a=1", Address("network", "rtsp://host/x?a=1"), NetworkSource),
    ("RTSP://host/x", Address("network", "RTSP://host/x"), NetworkSource),
    ("udp://239.0.0.1:5000", Address("network", "udp://239.0.0.1:5000"), NetworkSource),
    ("gst:videotestsrc ! a:b", Address("gst", "videotestsrc ! a:b"), GstSource),
    ("cine.MP4", Address("video", "cine.MP4"), VideoSource),
    ("stack.npy", Address("array", "stack.npy"), ArraySource),
    ("a.dcm", Address("file", "a.dcm"), FileSource),
    ("1.2.840.10008", Address("file", "1.2.840.10008"), FileSource),
    ("http:a.mkv", Address("video", "http:a.mkv"), VideoSource),
]


@pytest.mark.parametrize(("text", "address", "kind"), KINDS)
def test_addresses_name_sources(text: str, address: Address, kind: type) -> None:
    assert parse_address(text) == address
    source = open_source([address], reader=open_image)
    assert type(source) is kind
    assert source.live == address.live
    source.close()


@given(st.text(max_size=40) | st.from_regex(r"(v4l2:|gst:|rtsp://|/dev/video)[\x00-\xff]{0,20}", fullmatch=True))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    hint = "none needed"
    try:
        open_source([parse_address(text)], reader=open_image).close()
    except EdgemedError as error:
        hint = error.hint
    assert hint


def test_several_files_are_one_stream(tmp_path: Path) -> None:
    pair = [parse_address("a.png"), parse_address("b.dcm")]
    assert isinstance(open_source(pair, reader=open_image), FileSource)
    for wrong in ([], [*pair, parse_address("c.mp4")]):
        with pytest.raises(UsageError, match="Only image files"):
            open_source(wrong, reader=open_image)
    with pytest.raises(InputError, match="cannot be read here"):
        open_source(pair)


def test_passwords_are_not_shown() -> None:
    assert parse_address("rtsp://me:secret@host/x").shown == "rtsp://me:***@host/x"
