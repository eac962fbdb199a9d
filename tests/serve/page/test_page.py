"""The page in a real browser: alive, honest when the server is frozen, for keyboards, phones and dark rooms."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import httpx
import numpy as np
import pytest

from edgemed.base.child import package_environment
from edgemed.serve.analysis.sketches import Sketches
from edgemed.serve.weekly import weekly_of
from tests.serve import kit
from tests.serve.canary import MARK, marked
from tests.serve.page.browser import Browser, started
from tests.serve.process import Process
from tests.serve.process import started as daemon
from tests.waiting import wait_for

PAGES = ("/", "/studies", "/queue", "/latency", "/drift", "/models", "/alarms", "/audit")
HOSTILE = "<script>alert(1)</script>"
SHOTS = os.environ.get("EDGEMED_SHOTS")
"""Folder for pictures of what the tests see, to be looked at."""


def cine(path: Path) -> Path:
    """A bright spot that wanders."""
    rows, columns = np.mgrid[:240, :320]
    spots = [60 + 140 * np.exp(-((columns - 100 - 3 * i) ** 2 + (rows - 120) ** 2) / 1500) for i in range(40)]
    ds = kit.image(sop_class=kit.US_MULTIFRAME, rows=240, columns=320, frames=40)
    ds.PixelData = np.stack(spots).astype(np.uint8).tobytes()
    return kit.write(ds, path)


def week(state: Path) -> None:
    """Tasks that were counted before the daemon started."""
    kept = Sketches(weekly_of(state))
    for value in np.linspace(0.1, 0.9, 40):
        kept.add("chest", "d" * 64, {"score": float(value)}, {"modality": "CT"}, False, {"score": [0.2, 0.4, 0.6]})
    kept.keep()


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("page")
    kit.write_segmenter(root / "bright.edgemed")
    cine(root / "cine.dcm")
    week(root / "state")
    model = {"runner": "onnxruntime", "results": ["sr", "json"]}
    with daemon(
        root,
        models=[
            {"name": "chest", "bundle": "chest.edgemed", "send_to": ["shelf", "pacs"], **model},
            {"name": "bright", "bundle": "bright.edgemed", "match": {"modalities": ["none"]}, **model},
        ],
        live=[{"name": "scope", "source": str(root / "cine.dcm"), "model": "bright", "loop": True, "stale": "2s"}],
        destinations=[
            {"name": "shelf", "kind": "folder", "path": str(root / "shelf"), "results": ["json"]},
            {"name": "pacs", "kind": "dicom", "ae_title": HOSTILE[:16], "host": "127.0.0.1", "port": 9},
        ],
    ) as one:
        (root / "shelf").mkdir(exist_ok=True)
        one.ready()
        assert one.send(*(marked(level) for level in (20, 120, 240))) == [0, 0, 0]
        wait_for(lambda: len(list((root / "shelf").rglob("*.json"))) == 3, lambda: one.log)
        yield one


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory):
    with started(tmp_path_factory.mktemp("chromium")) as one:
        yield one


@pytest.fixture(autouse=True)
def _usual(browser: Browser) -> None:
    browser.size(1280, 900)
    browser.dark(False)


def shot(browser: Browser, name: str) -> None:
    if SHOTS:
        browser.shot(Path(SHOTS) / f"{name}.png")


def test_every_page_is_whole_and_asks_nobody_else(browser: Browser, process: Process) -> None:
    for path in PAGES:
        browser.open(process.http + path)
        browser.until("document.querySelector('#light-word').textContent !== ''")
        assert browser.complaints() == [], path
        assert all(url.startswith((process.http, "data:")) for url in browser.asked()), path
        assert MARK not in browser.js("document.documentElement.outerHTML"), path
        shot(browser, f"page{path.replace('/', '-')}")


def test_drift_is_drawn_as_the_command_tells_it(browser: Browser, process: Process) -> None:
    browser.open(process.http + "/drift")
    bars = "document.querySelector('main figure path[fill=\"var(--bars)\"]')"
    assert browser.js(f"getComputedStyle({bars}).fill") == "rgb(157, 180, 191)"  # the page's colour
    assert "too few" in browser.js("document.querySelector('main table').innerText")
    told = httpx.get(process.http + "/api/drift", timeout=10).json()
    made = subprocess.run(
        [sys.executable, "-m", "edgemed.cli.main", "drift", str(process.root / "state"), "--json"],
        env=package_environment(),
        stdout=subprocess.PIPE,
        check=False,
    )
    assert told["models"] == json.loads(made.stdout)["models"]


def test_it_moves_by_itself(browser: Browser, process: Process) -> None:
    browser.open(process.http + "/")
    browser.until("document.querySelector('.age').textContent.endsWith('ms old')")
    drawn = "(c => Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).some(v => v > 100))"
    browser.until(f"{drawn}(document.querySelector('canvas'))")
    assert "bright" in browser.until("document.querySelector('.said').textContent")
    before = browser.js("document.querySelector('.account').textContent")
    browser.until(f"document.querySelector('.account').textContent !== {before!r}")
    shot(browser, "live")
    browser.dark(True)
    shot(browser, "live-dark")


def test_a_frozen_server_says_so_in_less_than_three_seconds(browser: Browser, process: Process) -> None:
    browser.open(process.http + "/")
    browser.until("document.querySelector('.age').textContent !== ''")
    assert browser.js("document.getElementById('frozen').hidden")
    # the browser's own clock: from the last word of the server to the banner
    browser.js(
        "window.seen = null; window.last = performance.now();"
        "new EventSource('/page/events').onmessage = () =>"
        " { if (window.seen === null) window.last = performance.now(); };"
        "setInterval(() => { const shown = !document.getElementById('frozen').hidden;"
        " if (shown && window.seen === null) window.seen = performance.now(); }, 10); 1"
    )
    os.kill(process.child.pid, signal.SIGSTOP)
    try:
        browser.until("window.seen !== null")
        taken_ms = browser.js("window.seen - window.last")
        assert browser.js("document.body.hasAttribute('data-frozen')")
        assert "does not answer" in browser.js("document.getElementById('frozen').innerText")
        assert "Unknown" in browser.js("document.getElementById('light-word').textContent")
        shot(browser, "frozen")
    finally:
        os.kill(process.child.pid, signal.SIGCONT)
    # 2.5 s of silence, looked at each 0.2 s; a browser on a busy machine may come late to its timers
    assert 2000 < taken_ms < 3000
    browser.until("document.getElementById('frozen').hidden")
    browser.until("document.getElementById('light-word').textContent.startsWith('Ready')")


def test_a_live_picture_that_grows_old_is_marked_and_then_gone(browser: Browser, process: Process) -> None:
    """Age grows in the page while the server says nothing newer: the source, not the server, has stopped."""
    browser.open(process.http + "/")
    browser.until("document.querySelector('.age').textContent.endsWith('ms old')")
    os.kill(process.child.pid, signal.SIGSTOP)
    try:
        browser.until("document.querySelector('.live').hasAttribute('data-stale')")
        assert browser.js("document.querySelector('.age').textContent").startswith("STALE")
        browser.until("document.querySelector('.live').hasAttribute('data-gone')")
    finally:
        os.kill(process.child.pid, signal.SIGCONT)
    browser.until("!document.querySelector('.live').hasAttribute('data-stale')")


def test_the_age_is_that_of_the_picture_on_the_screen(browser: Browser, process: Process) -> None:
    """Newer answers that the page is told of, but does not show, make nothing younger."""
    browser.open(process.http + "/")
    browser.until("document.querySelector('.age').textContent.endsWith('ms old')")
    assert not browser.js("document.querySelector('.live').hasAttribute('data-stale')")
    account = browser.js("document.querySelector('.account').textContent")
    browser("Network.setBlockedURLs", urls=["*.jpg*"])
    try:
        browser.until("document.querySelector('.live').hasAttribute('data-gone')")
        assert browser.js("document.querySelector('.age').textContent").startswith("STALE")
        assert browser.js("document.querySelector('.account').textContent") != account  # it was told
    finally:
        browser("Network.setBlockedURLs", urls=[])
    browser.until("!document.querySelector('.live').hasAttribute('data-stale')")


def test_a_picture_comes_with_its_age_and_what_is_said_of_it(process: Process) -> None:
    answer = httpx.get(process.http + "/live/scope.jpg", params={"after": 0, "age": 0}, timeout=10)
    assert answer.content.startswith(b"\xff\xd8")
    assert float(answer.headers["x-age-ms"]) > 0
    assert unquote(answer.headers["x-said"]).startswith("bright ")
    (told,) = httpx.get(process.http + "/api/overview", timeout=10).json()["live"]
    assert told["number"] >= int(answer.headers["x-number"])


def test_keyboard_alone(browser: Browser, process: Process) -> None:
    browser.open(process.http + "/")
    focused = []
    for _ in range(12):
        browser.press("Tab", 9)
        focused.append(browser.js("document.activeElement.innerText"))
        style = "getComputedStyle(document.activeElement)"
        assert browser.js(f"{style}.outlineStyle !== 'none' && parseFloat({style}.outlineWidth) >= 2"), focused
    assert focused[0] == "Skip to content"
    assert focused[2:10] == ["Bedside", "Studies", "Queue", "Latency", "Drift", "Models", "Alarms", "Audit"]


@pytest.mark.parametrize("path", PAGES)
def test_a_phone_scrolls_down_only(browser: Browser, process: Process, path: str) -> None:
    browser.size(360, 740)
    browser.open(process.http + path)
    assert browser.js("document.documentElement.scrollWidth") <= 360
    shot(browser, f"phone{path.replace('/', '-')}")


def test_without_javascript_it_says_the_same(process: Process) -> None:
    text = httpx.get(process.http + "/", timeout=10).text
    assert "Ready" in text
    assert '<img src="/live/scope.jpg"' in text
    studies = httpx.get(process.http + "/studies", timeout=10).text
    number = studies.partition('href="/studies/')[2].partition('"')[0]
    study = httpx.get(f"{process.http}/studies/{number}", timeout=10).text
    assert "delivering" in study
    assert "pacs" in study
    assert httpx.get(f"{process.http}/studies/999999", timeout=10).status_code == 404
    assert httpx.get(f"{process.http}/static/..%2f__init__.py", timeout=10).status_code == 404


def test_who_looks_at_a_study_is_in_the_trail_with_the_study(process: Process) -> None:
    listed = httpx.get(process.http + "/api/studies", timeout=10).json()["studies"]
    shown = httpx.get(f"{process.http}/api/studies/{listed[0]['number']}", timeout=10)
    trail = process.root / "state" / "audit" / "trail.jsonl"
    entries = wait_for(lambda: [one for one in trail.read_text().splitlines() if "DICOM Instances Accessed" in one])
    uid = re.search(r"ParticipantObjectID=\W*([0-9.]+)", entries[-1])
    assert uid is not None
    assert uid[1] in trail.read_text().partition("DICOM Instances Accessed")[0]  # as it was received
    assert uid[1] not in shown.text


@pytest.mark.parametrize("path", ["/audit", "/api/audit"])
def test_who_reads_the_trail_is_in_it(process: Process, path: str) -> None:
    trail = process.root / "state" / "audit" / "trail.jsonl"
    before = trail.read_text().count("Audit Log Used")
    httpx.get(process.http + path, timeout=10)
    wait_for(lambda: trail.read_text().count("Audit Log Used") > before)


def test_what_comes_from_outside_is_shown_and_not_obeyed(process: Process, browser: Browser) -> None:
    title = "<i>EVIL</i>"
    assert send_as(process, title) is False

    def shown() -> str:
        text = httpx.get(process.http + "/audit", timeout=10).text
        return text if "&lt;i&gt;EVIL&lt;/i&gt;" in text else ""

    assert title not in wait_for(shown)
    browser.open(process.http + "/audit")
    assert browser.complaints() == []


def send_as(process: Process, title: str) -> bool:
    from pynetdicom import AE

    ae = AE(title)
    ae.add_requested_context("1.2.840.10008.1.1")
    association = ae.associate("127.0.0.1", process.dicom, ae_title="EDGEMED")
    established = bool(association.is_established)
    if established:
        association.release()
    return established


def test_an_alarm_that_somebody_has_seen_to(browser: Browser, process: Process) -> None:
    wait_for(lambda: httpx.get(process.http + "/api/alarms", timeout=10).json())
    browser.open(process.http + "/alarms")
    before = browser.until("document.querySelectorAll('ul.alarms button').length")
    browser.js("document.querySelector('ul.alarms button').focus(); 1")
    browser.press("Enter", 13)
    browser.until(f"location.pathname === '/alarms' && document.querySelectorAll('ul.alarms button').length < {before}")
    gone = httpx.post(f"{process.http}/admin/alarms/disk-low/seen", timeout=10)
    assert (gone.status_code, gone.json()["error"]) == (404, "That alarm does not stand. See /api/alarms.")
