"""The body of a STOW-RS request: parts of `multipart/related` as they come, none of them whole in memory."""

from __future__ import annotations

from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from edgemed.serve.http.answers import HttpError
from edgemed.serve.http.stow.part import CANNOT_UNDERSTAND, Part, Sender, Stored
from edgemed.serve.services import Services

DICOM: Final = b"application/dicom"
MOST_PARTS: Final = 10_000
_MOST_HEADERS: Final = 16
_MOST_HEADER_BYTES: Final = 4096
_MOST_BOUNDARY: Final = 128  # 70 by RFC 2046; Orthanc has 73


class Receiver:
    """Takes pieces of the body; what is complete is kept at once. For one thread at a time: it writes and syncs files.

    Args:
        services: of the daemon.
        sender: of the request.
        content_type: of the request.
        limit: bytes that an instance may have.

    Raises:
        HttpError: 415 or 400: it is not what can be stored.
    """

    def __init__(self, services: Services, sender: Sender, content_type: bytes, limit: int) -> None:
        self._services = services
        self._sender = sender
        self._limit = limit
        self._part: Part | None = None
        self._field = b""
        self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self._ended = False
        self._parser = self._parser_for(content_type)
        self.stored: list[Stored] = []

    def write(self, piece: bytes) -> None:
        """The next bytes of the body.

        Raises:
            HttpError: 400: they are no multipart.
        """
        if self._parser is None:
            assert self._part is not None
            self._part.write(memoryview(piece))
            return
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise HttpError(400, "The body is not multipart, as its Content-Type says. Check its boundary.") from error

    def finish(self) -> list[Stored]:
        """The body is over; what became of its parts.

        Raises:
            HttpError: 400: it ends in the middle, or holds nothing. What came whole before is kept.
        """
        if self._parser is None and self._part is not None:
            self._on_part_end()
            return self.stored
        self.cancel()
        if not self._ended:
            raise HttpError(400, "The body ends in the middle. Send it again.")
        if not self.stored:
            raise HttpError(400, "The body holds no instance. Send at least one.")
        return self.stored

    def cancel(self) -> None:
        """Let go of what is not complete."""
        if self._part is not None:
            self._part.cancel()
            self._part = None

    def _parser_for(self, content_type: bytes) -> MultipartParser | None:
        kind, options = parse_options_header(content_type)
        if kind.lower() == DICOM:  # a single one
            self._part = Part(self._services, self._sender, self._limit)
            return None
        if kind.lower() != b"multipart/related" or options.get(b"type", DICOM).lower() != DICOM:
            raise HttpError(415, 'Instances are stored as multipart/related; type="application/dicom". Send such.')
        boundary = options.get(b"boundary", b"")
        if not 1 <= len(boundary) <= _MOST_BOUNDARY:
            raise HttpError(400, "The Content-Type has no boundary, or one that is too long. Name one.")
        return MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
            max_header_count=_MOST_HEADERS,
            max_header_size=_MOST_HEADER_BYTES,
        )

    def _on_part_begin(self) -> None:
        if len(self.stored) >= MOST_PARTS:
            raise HttpError(413, f"The request has more than {MOST_PARTS} parts. Send fewer at a time.")
        self._headers = {}

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._field = self._value = b""

    def _on_headers_finished(self) -> None:
        self._part = Part(self._services, self._sender, self._limit)
        kind = parse_options_header(self._headers.get(b"content-type", DICOM))[0].lower()
        coded = self._headers.get(b"content-encoding") or self._headers.get(b"content-transfer-encoding", b"binary")
        if kind != DICOM:
            self._part.refuse(CANNOT_UNDERSTAND, "The part is no application/dicom.")
        elif coded.strip().lower() not in (b"binary", b"identity", b"8bit", b"7bit"):
            self._part.refuse(CANNOT_UNDERSTAND, "The part is encoded. Send it as it is.")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        assert self._part is not None
        self._part.write(memoryview(data)[start:end])

    def _on_part_end(self) -> None:
        assert self._part is not None
        part, self._part = self._part, None
        self.stored.append(part.finish())

    def _on_end(self) -> None:
        self._ended = True
