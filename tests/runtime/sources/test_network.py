"""Network streams: a real RTSP server (GStreamer's), and MPEG-TS over TCP by FFmpeg, both on this machine."""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from runtime.sources import system_python, videos

from edgemed.base.errors import DeviceStateError, InputError
from edgemed.runtime.sources.network import NetworkSource, without_password

SERVER = Path(__file__).parent / "gst_server.py"


def free_port() -> int:
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def rtsp(port: int, *credentials: str) -> Iterator[str]:
    """A camera that serves; the address of its stream."""
    command = [system_python.require(), str(SERVER), str(port), *credentials]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=system_python.environment())
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        yield f"rtsp://127.0.0.1:{port}/camera"
    finally:
        server.kill()
        server.wait()
        server.stdout.close()  # type: ignore[union-attr]


def test_rtsp_gives_pictures_as_they_arrive() -> None:
    with rtsp(free_port()) as url, NetworkSource(url) as source:
        frames = list(itertools.islice(source, 25))
    numbers = [videos.number_of(frame.data["pixels"]) for frame in frames]
    assert [frame.id for frame in frames] == list(range(25))
    assert all(0 < (b - a) % 256 < 50 for a, b in itertools.pairwise(numbers))  # the newest each time, none twice
    times = [frame.captured_ns for frame in frames]
    assert times == sorted(times)
    assert source.live


def test_a_stream_that_breaks_off_is_connected_again() -> None:
    port = free_port()
    with rtsp(port) as url:
        source = NetworkSource(url, timeout_s=3, give_up_s=60)
        before = [next(source).id for _ in range(5)]
    with rtsp(port), source:
        after = [next(source).id for _ in range(5)]
    assert before + after == list(range(10))
    assert source.reconnects >= 1


def test_a_stream_that_stays_away_is_given_up() -> None:
    with rtsp(free_port()) as url:
        source = NetworkSource(url, timeout_s=2, give_up_s=1)
        next(source)
    with source, pytest.raises(DeviceStateError, match="broke off, and did not come back in 1 s"):
        for _ in source:
            pass


def test_credentials_are_used_and_never_shown() -> None:
    port = free_port()
    with rtsp(port, "me", "secret"):
        with NetworkSource(f"rtsp://me:secret@127.0.0.1:{port}/camera") as source:
            next(source)
        with pytest.raises(InputError, match=r"other credentials") as refused:
            NetworkSource(f"rtsp://me:hunter2@127.0.0.1:{port}/camera").open()
        assert "hunter2" not in str(refused.value)
        with pytest.raises(InputError, match="404"):
            NetworkSource(f"rtsp://me:secret@127.0.0.1:{port}/nothing").open()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://me:p@ss@host/x", "rtsp://me:***@host/x"),
        ("rtsp://me:pa/ss@host/x", "rtsp://me:***@host/x"),
        ("rtsp://host:554/x@y", "rtsp://host:554/x@y"),
        ("http://host/v?user=me&pwd=secret&x=1", "http://host/v?user=me&pwd=***&x=1"),
        ("srt://host:9000?passphrase=topsecret", "srt://host:9000?passphrase=***"),
        ('rtspsrc user-id=me user-pw="a secret" ! decodebin', "rtspsrc user-id=me user-pw=*** ! decodebin"),
        ("URL: http://me:secret@host/x, Redirect to: (NULL)", "URL: http://me:***@host/x, Redirect to: (NULL)"),
    ],
)
def test_secrets_of_every_form_are_taken_out(text: str, shown: str) -> None:
    assert without_password(text) == shown


def test_passwords_are_taken_out_of_addresses() -> None:
    assert without_password("rtsp://me:p%40ss@host:554/a:b@c") == "rtsp://me:***@host:554/a:b@c"
    assert without_password("rtsp://host:554/a") == "rtsp://host:554/a"
    assert without_password("tcp://host:80") == "tcp://host:80"


def test_nobody_there_and_nobody_who_speaks() -> None:
    port = free_port()
    with pytest.raises(DeviceStateError, match="refuses the connection"):
        NetworkSource(f"rtsp://127.0.0.1:{port}/camera").open()
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(DeviceStateError, match="does not answer"):
            NetworkSource(f"rtsp://127.0.0.1:{port}/camera", timeout_s=0.5).open()


SENDER = """
import sys, time
sys.path.insert(0, {folder!r})
import av, videos
from fractions import Fraction
with av.open("tcp://127.0.0.1:{port}?listen=1", "w", format="mpegts") as file:
    stream = file.add_stream("mpeg2video", rate=50)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    for number in range(100000):
        frame = av.VideoFrame.from_ndarray(videos.picture(number % 256), format="rgb24").reformat(format="yuv420p")
        frame.pts, frame.time_base = number, Fraction(1, 50)
        for packet in stream.encode(frame):
            file.mux(packet)
        time.sleep(0.005)
"""


@contextmanager
def sender(port: int) -> Iterator[None]:
    script = SENDER.format(folder=str(Path(__file__).parent), port=port)
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def connected(url: str) -> NetworkSource:
    """The sender listens as soon as it may; until then it refuses."""
    while True:
        source = NetworkSource(url, timeout_s=5, give_up_s=1)
        try:
            source.open()
        except DeviceStateError:
            source.close()
        else:
            return source


def test_mpeg_ts_over_tcp() -> None:
    port = free_port()
    with sender(port), connected(f"tcp://127.0.0.1:{port}") as source:
        numbers = [videos.number_of(frame.data["pixels"]) for frame in itertools.islice(source, 30)]
    assert {(b - a) % 256 for a, b in itertools.pairwise(numbers)} == {1}


def test_a_close_from_another_thread_ends_a_stream() -> None:
    port = free_port()
    with sender(port):
        source = connected(f"tcp://127.0.0.1:{port}")
        came = threading.Event()

        def take() -> None:
            for _ in source:
                came.set()

        reader = threading.Thread(target=take)
        reader.start()
        assert came.wait(60)
        source.close()
        reader.join(60)
        assert not reader.is_alive()
        assert list(source) == []


@pytest.mark.parametrize(
    "body", ["#EXTM3U\n#EXTINF:5,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\n"]
)
def test_a_server_that_sends_a_playlist_opens_nothing_here(body: str) -> None:
    """What a stream sends is never followed: neither to files of this machine nor to other hosts."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]

        def serve() -> None:
            with closing(server.accept()[0]) as client:
                client.recv(4096)
                head = f"HTTP/1.0 200 OK\r\nContent-Type: application/x-mpegURL\r\nContent-Length: {len(body)}\r\n\r\n"
                client.sendall((head + body).encode())

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(InputError, match="no video that is read"):
            NetworkSource(f"http://127.0.0.1:{port}/innocent.mp4", timeout_s=5).open()
        thread.join()
