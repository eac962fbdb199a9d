"""Video files: real ones of several codecs and containers, odd ones, hostile ones."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runtime.sources import system_python, videos

from edgemed.base.errors import EdgemedError, InputError, MissingSoftwareError, ResourceError
from edgemed.runtime.sources.video import SUFFIXES, VideoSource

CASES = [
    ("mpeg4", "yuv420p", ".mp4"), ("mpeg4", "yuv420p", ".avi"), ("mjpeg", "yuvj420p", ".avi"),
    ("mpeg2video", "yuv420p", ".ts"), ("ffv1", "gray", ".mkv"), ("ffv1", "yuv444p", ".mkv"), ("ffv1", "bgr0", ".mkv"),
    ("libx264", "yuv420p", ".mp4"), ("libvpx", "yuv420p", ".webm"),
]  # fmt: skip


@pytest.mark.parametrize(("codec", "pixel_format", "suffix"), CASES)
def test_every_picture_comes_once_and_in_order(tmp_path: Path, codec: str, pixel_format: str, suffix: str) -> None:
    """Also of codecs that store pictures in another order than they are shown."""
    path = videos.write(tmp_path / f"video{suffix}", 30, codec, pixel_format)
    with VideoSource(path) as source:
        frames = list(source)
    assert [videos.number_of(frame.data["pixels"]) for frame in frames] == list(range(30))
    assert [frame.id for frame in frames] == [frame.sequence for frame in frames] == list(range(30))
    assert source.lost == 0
    shape = (48, 64) if pixel_format == "gray" else (48, 64, 3)
    assert all(f.data["pixels"].shape == shape and f.data["pixels"].dtype == np.uint8 for f in frames)
    assert suffix in SUFFIXES


def test_lossless_pixels_are_what_was_stored(tmp_path: Path) -> None:
    with VideoSource(videos.write(tmp_path / "a.mkv", 3, "ffv1", "bgr0")) as source:
        for number, frame in enumerate(source):
            assert (frame.data["pixels"] == videos.picture(number)).all()


def test_gray_of_many_bits_is_widened_to_16(tmp_path: Path) -> None:
    with VideoSource(videos.write(tmp_path / "a.mkv", 3, "ffv1", "gray10le")) as source:
        frames = list(source)
    assert [videos.number_of(frame.data["pixels"]) for frame in frames] == [0, 1, 2]
    for frame in frames:
        pixels = frame.data["pixels"]
        assert (pixels.dtype, pixels.shape) == (np.uint16, (48, 64))
        ten = np.rint(videos.picture(frame.id)[..., 0] / 255 * 1023)  # what the encoder made of 8 bits, +- 1
        assert np.abs(pixels / 65535 * 1023 - ten).max() <= 1.1


def test_live_video_plays_by_its_own_times(tmp_path: Path) -> None:
    times = [0, 1, 2, 5, 6, 7]  # one picture stands for three
    path = videos.write(tmp_path / "a.mkv", 6, "ffv1", "gray", rate=100, times=times)
    with VideoSource(path, live=True) as source:
        captured = [frame.captured_ns for frame in source]
    steps = [round((b - a) / 1e6) for a, b in itertools.pairwise(captured)]
    assert steps == [10, 10, 30, 10, 10]
    with VideoSource(path, live=True, rate=500) as source:
        captured = [frame.captured_ns for frame in source]
    assert {b - a for a, b in itertools.pairwise(captured)} == {2_000_000}


def test_times_that_leap_are_set_right(tmp_path: Path) -> None:
    """A gap of an hour in the times of a file plays as one usual step."""
    path = videos.write(tmp_path / "a.mkv", 6, "ffv1", "gray", rate=100, times=[0, 1, 2, 360_000, 360_001, 360_002])
    with VideoSource(path, live=True) as source:
        captured = [frame.captured_ns for frame in source]
    steps = [(b - a) / 1e6 for a, b in itertools.pairwise(captured)]
    assert len(captured) == 6
    assert max(steps) < 100


def test_a_wrong_suffix_does_not_matter(tmp_path: Path) -> None:
    path = videos.write(tmp_path / "a.mp4", 5).rename(tmp_path / "a.avi")
    with VideoSource(path) as source:
        assert len(list(source)) == 5


@pytest.mark.parametrize(("codec", "pixel_format", "suffix"), CASES)
def test_a_truncated_file_gives_what_it_has_or_says_why_not(
    tmp_path: Path, codec: str, pixel_format: str, suffix: str
) -> None:
    path = videos.write(tmp_path / f"video{suffix}", 30, codec, pixel_format)
    data = path.read_bytes()
    given = []
    for share in (0.05, 0.3, 0.6, 0.95):
        path.write_bytes(data[: int(share * len(data))])
        try:
            with VideoSource(path) as source:
                numbers = [videos.number_of(frame.data["pixels"]) for frame in source]
        except InputError:
            continue
        assert numbers == sorted(numbers)
        assert len(numbers) <= 30
        given.append(len(numbers))
    assert given == sorted(given)
    if suffix in (".ts", ".mkv", ".webm"):  # made to be cut anywhere
        assert given
        assert given[-1] >= 20


def test_noise_in_the_middle_ends_in_frames_and_losses(tmp_path: Path) -> None:
    """No crash, no hang, no exception of FFmpeg's own; what comes out is a frame, or is counted."""
    rng = np.random.default_rng(7)
    for codec, pixel_format, suffix in CASES:
        data = bytearray(videos.write(tmp_path / f"video{suffix}", 30, codec, pixel_format).read_bytes())
        for place in rng.integers(len(data) // 3, len(data), 200):
            data[place] = rng.integers(256)
        (tmp_path / "noisy").write_bytes(data)
        try:
            with VideoSource(tmp_path / "noisy") as source:
                frames = list(source)
        except EdgemedError:
            continue
        assert frames
        assert [frame.id for frame in frames] == list(range(len(frames)))


TAGS = [(1, 1, "709", False), (5, 1, "601", False), (1, 2, "709", True), (9, 1, "2020", False), (2, 1, "601", False)]


def tagged(path: Path, colorspace: int, color_range: int) -> Path:
    """One picture of many colours, in luma and chroma, lossless, with the tags of its matrix and range."""
    import av

    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv444p"
        stream.codec_context.colorspace, stream.codec_context.color_range = colorspace, color_range
        stream.codec_context.options = {"qp": "0"}
        frame = av.VideoFrame.from_ndarray(COLOURS, format="yuv444p")
        frame.colorspace, frame.color_range = colorspace, color_range
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            file.mux(packet)
    return path


COLOURS = np.kron(np.random.default_rng(5).integers(60, 200, (3, 8, 8)), np.ones((1, 8, 8), int)).astype(np.uint8)


def exact(matrix: str, full: bool) -> np.ndarray[Any, Any]:
    y, u, v = COLOURS.astype(float)
    kr, kb = {"601": (0.299, 0.114), "709": (0.2126, 0.0722), "2020": (0.2627, 0.0593)}[matrix]
    luma = y / 255 if full else (y - 16) / 219
    pb, pr = ((c - 128) / (255 if full else 224) for c in (u, v))
    red, blue = luma + 2 * (1 - kr) * pr, luma + 2 * (1 - kb) * pb
    green = (luma - kr * red - kb * blue) / (1 - kr - kb)
    return np.clip(255 * np.stack([red, green, blue], axis=-1), 0, 255)


@pytest.mark.parametrize(("colorspace", "color_range", "matrix", "full"), TAGS)
def test_colours_follow_the_tags(tmp_path: Path, colorspace: int, color_range: int, matrix: str, full: bool) -> None:
    """Within 3 levels: what FFmpeg's fast conversion errs by. The matrices differ by ten times that here."""
    with VideoSource(tagged(tmp_path / "a.mkv", colorspace, color_range)) as source:
        pixels = next(source).data["pixels"].astype(float)
    assert np.abs(pixels - exact(matrix, full)).max() <= 3
    others = [exact(*other) for other in (("601", False), ("709", False), ("601", True)) if other != (matrix, full)]
    assert all(np.abs(pixels - other).max() > 8 for other in others)


def test_the_pyav_of_debian_reads_the_same_pixels(tmp_path: Path) -> None:
    """JetPack and Debian ship old ones, which by themselves take every video for BT.601."""
    names = []
    for index, (colorspace, color_range, *_) in enumerate(TAGS):
        names.append(tagged(tmp_path / f"tag{index}.mkv", colorspace, color_range))
    for index, (codec, pixel_format, suffix) in enumerate(CASES):
        names.append(videos.write(tmp_path / f"video{index}{suffix}", 30, codec, pixel_format))
    script = (
        "import sys, numpy\nfrom pathlib import Path\nfrom edgemed.runtime.sources.video import VideoSource\n"
        "for name in sys.argv[1:]:\n"
        "    with VideoSource(Path(name)) as source:\n"
        "        numpy.save(name + '.npy', numpy.stack([frame.data['pixels'] for frame in source]))\n"
    )
    subprocess.run(
        [system_python.require(), "-c", script, *map(str, names)], env=system_python.environment(), check=True
    )
    for name in names:
        with VideoSource(name) as source:
            ours = np.stack([frame.data["pixels"] for frame in source]).astype(int)
        theirs = np.load(f"{name}.npy").astype(int)
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() <= 2, name  # another release of the decoder and of the conversion


def test_pictures_beyond_the_limit_are_refused_or_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At first sight, and where a stream grows on its way."""
    small = videos.write(tmp_path / "small.mjpeg", 3, "mjpeg", "yuvj420p")
    large = videos.write(tmp_path / "large.mjpeg", 3, "mjpeg", "yuvj420p", size=(640, 480))
    monkeypatch.setattr("edgemed.runtime.sources.ffmpeg.MOST_PIXELS", 128 * 128)
    with pytest.raises(InputError, match="640x480, more than allowed"):
        VideoSource(large).open()
    grown = tmp_path / "grown.mjpeg"
    grown.write_bytes(small.read_bytes() + large.read_bytes())
    with VideoSource(grown) as source:
        assert {frame.data["pixels"].shape for frame in source} == {(48, 64, 3)}
    assert source.lost == 3


def test_a_stream_that_changes_its_size_is_followed(tmp_path: Path) -> None:
    small = videos.write(tmp_path / "small.mjpeg", 3, "mjpeg", "yuvj420p")
    large = videos.write(tmp_path / "large.mjpeg", 3, "mjpeg", "yuvj420p", size=(640, 480))
    (tmp_path / "both.mjpeg").write_bytes(small.read_bytes() + large.read_bytes())
    with VideoSource(tmp_path / "both.mjpeg") as source:
        found = [(frame.data["pixels"].shape, videos.number_of(frame.data["pixels"])) for frame in source]
    assert found == [((48, 64, 3), n) for n in range(3)] + [((480, 640, 3), n) for n in range(3)]


HOSTILE = {
    "playlist": "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile:{other}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{other}'\n",
    "remote": "#EXTM3U\n#EXTINF:5,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
    "a=rtpmap:96 H264/90000\n",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_file_that_names_other_files_or_hosts_is_not_followed(tmp_path: Path, kind: str) -> None:
    other = videos.write(tmp_path / "other.ts", 5, "mpeg2video")
    path = tmp_path / "innocent.mp4"
    path.write_text(HOSTILE[kind].format(other=other), encoding="utf-8")
    with pytest.raises(InputError, match="no video that is read"):
        VideoSource(path).open()


def test_a_name_is_a_name_and_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    videos.write(tmp_path / "a.mkv", 4, "ffv1", "gray").rename(tmp_path / "http:a.mkv")
    with VideoSource(Path("http:a.mkv")) as source:
        assert len(list(source)) == 4


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "noise.mp4").write_bytes(bytes(range(256)) * 40)
    os.mkfifo(tmp_path / "pipe.mp4")
    for name in ("empty.mp4", "noise.mp4", "pipe.mp4"):
        with pytest.raises(InputError, match=name):
            VideoSource(tmp_path / name).open()
    with pytest.raises(ResourceError, match="does not exist"):
        VideoSource(tmp_path / "none.mp4").open()


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "a.mkv"), "w") as file:
        stream = file.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            file.mux(packet)
    with pytest.raises(InputError, match="holds no pictures"):
        VideoSource(tmp_path / "a.mkv").open()


def test_a_close_from_another_thread_ends_a_video(tmp_path: Path) -> None:
    path = videos.write(tmp_path / "a.mkv", 6, "ffv1", "gray", times=[0, 200, 400, 600, 800, 1000])
    source = VideoSource(path, live=True)  # 8 s from picture to picture
    got: list[int] = []
    came = threading.Event()

    def read() -> None:
        for frame in source:
            got.append(frame.id)
            came.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert came.wait(30)
    source.close()
    reader.join(30)
    assert not reader.is_alive()
    assert len(got) < 6


def test_a_video_left_half_read_is_closed(tmp_path: Path) -> None:
    path = videos.write(tmp_path / "a.mkv", 6, "ffv1", "gray")
    before = sum(1 for _ in Path("/proc/self/fd").iterdir())
    for _ in range(5):
        with VideoSource(path) as source:
            next(source)
    assert sum(1 for _ in Path("/proc/self/fd").iterdir()) == before


def test_without_pyav_the_way_is_said() -> None:
    """In a process where it cannot be imported."""
    script = (
        "import sys; sys.modules['av'] = None\n"
        "from pathlib import Path\nfrom edgemed.runtime.sources.video import VideoSource\n"
        "try: VideoSource(Path('x.mp4')).open()\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(MissingSoftwareError.__name__)
    assert "python3-av" in done.stdout
    assert "GPL" in done.stdout
