"""What schemathesis cannot know: how instances are put into a body, some of them real ones."""

from __future__ import annotations

from typing import Any

import schemathesis

from tests.serve import kit

BOUNDARY = "b0undary"
IMAGES = [kit.encode(kit.image(rows=8, columns=8, instance=f"1.2.826.0.1.{i}")) for i in range(4)]


@schemathesis.serializer("multipart/related")
def related(context: Any, value: Any) -> bytes:
    """A part that holds what was made up, and an image: whole, or cut where the first byte says."""
    made_up = value if isinstance(value, bytes) else str(value).encode()
    first = made_up[0] if made_up else 0
    image = IMAGES[first % len(IMAGES)]
    cut = image if first % 2 else image[: len(image) * first // 255]
    head = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    return b"".join(head + part + b"\r\n" for part in (made_up, cut)) + f"--{BOUNDARY}--\r\n".encode()


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """The boundary stands in the header."""
    if case.media_type == "multipart/related":
        case.headers = case.headers or {}
        case.headers["Content-Type"] = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
