"""An RTSP camera, by GStreamer's own server: `gst_server.py PORT [USER PASSWORD]` prints a line when it serves.

Pictures are Motion JPEG over RTP, 64x48, 50 a second, as `videos.picture` draws them: number n of 256 in turn.
"""

from __future__ import annotations

import sys
from pathlib import Path

import gi
import numpy as np

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))
from videos import picture  # noqa: E402

CAPS = "video/x-raw,format=RGB,width=64,height=48,framerate=50/1"
LAUNCH = (
    f"( appsrc name=camera is-live=true format=time do-timestamp=true caps={CAPS} "
    "! videoconvert ! video/x-raw,format=I420 ! jpegenc quality=95 ! rtpjpegpay name=pay0 pt=26 )"
)


class Camera(GstRtspServer.RTSPMediaFactory):
    def do_create_element(self, url):  # type: ignore[no-untyped-def]
        pipeline = Gst.parse_launch(LAUNCH)
        number = [0]
        source = pipeline.get_by_name("camera")

        def tick() -> bool:
            data = np.ascontiguousarray(picture(number[0] % 256)).tobytes()
            number[0] += 1
            return bool(source.emit("push-buffer", Gst.Buffer.new_wrapped(data)) == Gst.FlowReturn.OK)

        GLib.timeout_add(20, tick)
        return pipeline


def main() -> None:
    Gst.init(None)
    server = GstRtspServer.RTSPServer.new()
    server.set_address("127.0.0.1")
    server.set_service(sys.argv[1])
    camera = Camera()
    if len(sys.argv) > 3:
        auth = GstRtspServer.RTSPAuth.new()
        token = GstRtspServer.RTSPToken()
        token.set_string(GstRtspServer.RTSP_TOKEN_MEDIA_FACTORY_ROLE, "user")
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(*sys.argv[2:4]), token)
        server.set_auth(auth)
        permissions = GstRtspServer.RTSPPermissions()
        permissions.add_permission_for_role("user", GstRtspServer.RTSP_PERM_MEDIA_FACTORY_ACCESS, True)
        permissions.add_permission_for_role("user", GstRtspServer.RTSP_PERM_MEDIA_FACTORY_CONSTRUCT, True)
        camera.set_permissions(permissions)
    server.get_mount_points().add_factory("/camera", camera)
    if server.attach(None) == 0:
        sys.exit("the port is taken")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    GLib.MainLoop().run()


main()
