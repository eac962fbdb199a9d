"""Logs: one line each, and nothing of a patient in them."""

from __future__ import annotations

import io
import json
import logging
import threading
import warnings

import pytest

from edgemed.base.errors import InputError
from edgemed.serve.config.daemon import LogSection
from edgemed.serve.http.answers import as_json, log_bug
from edgemed.serve.logs import configure

UID = "1.2.840.113619.2.5.1762583153.215519.978957063.78"


@pytest.fixture
def stream():
    root, show = logging.getLogger(), warnings.showwarning
    handlers, level = list(root.handlers), root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
    warnings.showwarning = show


@pytest.mark.parametrize("form", ["json", "text"])
def test_nothing_of_a_patient_gets_out(stream: io.StringIO, form: str) -> None:
    configure(LogSection(format=form), stream)
    log = logging.getLogger("edgemed.serve.test")
    try:
        raise ValueError("Doe^Jane")
    except ValueError:
        log.exception("it failed for %s", UID)
    try:
        raise InputError(f"The file {UID} is odd.\nDoe", "Look.")
    except InputError:
        log.exception("and again")
    warnings.showwarning(UserWarning("Doe^Jane"), UserWarning, "/x/valuerep.py", 7)
    logging.getLogger("pynetdicom").error("(0010,0010) PN: %s", "Doe^Jane")
    logging.getLogger("pynetdicom").info("(0010,0010) PN: Doe^Jane")
    logging.getLogger("somebody").info("Doe^Jane")
    text = stream.getvalue()
    assert "Jane" not in text
    assert UID not in text
    assert "test_logs.py" in text  # where it happened is told
    assert len(text.splitlines()) == 3
    if form == "json":
        first, second, third = (json.loads(line) for line in text.splitlines())
        assert first["error"] == "ValueError"
        assert second["error"] == "The file [uid] is odd.\\x0aDoe Look."
        assert third["text"] == "(0010,0010) PN: %s"


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_bug_is_one_readable_line(stream: io.StringIO, form: str) -> None:
    """Its kind, our own places and the last one; neither the way through libraries, nor its text."""
    configure(LogSection(format=form), stream)
    try:
        as_json({"Doe^Jane": float("nan")})
    except ValueError as error:
        log_bug(error)
    text = stream.getvalue()
    assert len(text.splitlines()) == 1
    assert "a request failed by ValueError at answers.py:" in text
    assert "as_json > " in text
    assert "Jane" not in text
    assert "x0a" not in text
    assert len(text) < 400


def test_a_thread_that_an_error_ends_tells_nothing_of_a_patient(
    stream: io.StringIO, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)  # to be put back
    configure(LogSection(), stream)

    def fail() -> None:
        raise KeyError("Doe^Jane")

    thread = threading.Thread(target=fail, name="fragile")
    thread.start()
    thread.join()
    told = json.loads(stream.getvalue())
    assert (told["text"], told["error"]) == ("the thread fragile was ended by an error", "KeyError")
    assert "test_logs.py" in told["trace"]
    assert "Jane" not in stream.getvalue() + "".join(capfd.readouterr())
