"""What a new version goes through before it answers, and how a bad one is taken back."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from evaluate.hostile import reseal

from edgemed.base.errors import EdgemedError, InputError, IntegrityError, ResourceError
from edgemed.bundle.keys import new_key, read_private_key
from edgemed.bundle.read import open_bundle
from edgemed.bundle.sign import sign_bundle
from edgemed.runtime.contained.states import Limits
from edgemed.serve.audit.trail import AuditEvent
from edgemed.serve.models import releases, store, workers
from edgemed.serve.models.host import ModelHost
from edgemed.serve.models.trial import TrialReport
from tests.evaluate.bundles import classifier
from tests.runtime.contained import kit as contained
from tests.runtime.contained.faulty import Control
from tests.serve import kit
from tests.serve.models.kit import MS, WAIT_S, Hosted, another, first, frame, hosting, serving, write_faulty
from tests.waiting import wait_for


def states(host: ModelHost) -> list[str]:
    return [version["state"] for version in host.describe("chest")["versions"]]


def alarms(daemon: Hosted) -> set[str]:
    return {alarm.code for alarm in daemon.services.alarms.standing}


@contextmanager
def traffic(host: ModelHost, make: Any = frame) -> Iterator[list[Any]]:
    """Asks all the time; what it gave, answers and errors."""
    stop, ends = threading.Event(), []

    def ask() -> None:
        seed = 0
        while not stop.is_set():
            seed += 1
            time.sleep(0.003)
            try:
                ends.append(host.get("chest").submit(make(seed)).result(WAIT_S))
            except EdgemedError as error:
                ends.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield ends
    finally:
        stop.set()
        thread.join(WAIT_S)
        assert not thread.is_alive()


def test_a_good_version_is_tried_switched_to_and_settles_while_everything_is_answered(tmp_path: Path) -> None:
    with serving(tmp_path) as (daemon, host), traffic(host) as ends:
        old = host.get("chest").bundle.digest
        source = another(tmp_path, "second")
        assert host.propose("chest", source, user="alice") == "2"
        shutil.rmtree(source)  # the daemon has its own
        wait_for(lambda: states(host) == ["previous", "active"])
        new = host.get("chest")
        assert new.version == "2"
        wait_for(lambda: ends[-1].info.bundle_digest == new.bundle.digest)
        digests = [reply.info.bundle_digest for reply in ends]  # no error is among them
        assert digests == sorted(digests, key=lambda digest: digest != old), "it went back and forth"
        report = TrialReport.model_validate_json(
            (tmp_path / "state/releases/chest" / f"{new.bundle.digest}.trial.json").read_bytes()
        )
        assert (report.passed, report.inputs >= 6, report.disagreed) == (True, True, 0)
        assert report.candidate.median_ns is not None

        host.propose("chest", another(tmp_path, "third"))
        wait_for(lambda: states(host) == ["retired", "previous", "active"])
        kept = {path.stem for path in (tmp_path / "state/releases/chest").glob("*.edgemed")}
        assert kept == {new.bundle.digest, host.get("chest").bundle.digest}
        wait_for(lambda: not alarms(daemon))
        host.roll_back("chest", user="bob")
        wait_for(lambda: host.get("chest").version == "2")
        assert states(host) == ["retired", "active", "rejected"]
        wait_for(lambda: daemon.services.readiness.ready)
    assert all(not isinstance(end, EdgemedError) for end in ends)


def test_what_is_damaged_unsigned_or_older_is_refused_at_the_door(tmp_path: Path) -> None:
    for name in ("key", "other"):
        new_key(tmp_path / name)
    key, other = (read_private_key(tmp_path / name) for name in ("key", "other"))
    sign_bundle(open_bundle(first(tmp_path)), key, sequence=5)
    heard: list[AuditEvent] = []
    trust = {"keys": [tmp_path / "key.pub"], "revoked": tmp_path / "revoked"}
    (tmp_path / "revoked").write_text("")
    with serving(tmp_path, trust=trust, trial={"inputs": 0}) as (daemon, host):
        daemon.services.audit.record = heard.append  # type: ignore[method-assign]
        corrupt = another(tmp_path, "corrupt")
        sign_bundle(open_bundle(corrupt), key, sequence=6)
        (corrupt / "graphs/float.onnx").write_bytes(classifier(0.4))
        unsigned = another(tmp_path, "unsigned")
        stranger = another(tmp_path, "stranger")
        sign_bundle(open_bundle(stranger), other, sequence=6)
        older = another(tmp_path, "older")
        sign_bundle(open_bundle(older), key, sequence=4)
        for path, words in ((corrupt, "hash"), (unsigned, "not signed"), (stranger, "not trusted"), (older, "older")):
            with pytest.raises(IntegrityError, match=words):
                host.propose("chest", path)
            assert "model-rejected" in alarms(daemon)
        assert [event.result for event in heard] == ["serious"] * 4
        assert states(host) == ["active"]
        host.propose("chest", older, older=True, user="alice")
        wait_for(lambda: states(host) == ["previous", "active"])
        wait_for(lambda: not alarms(daemon))
        # back to what has the higher sequence, and the lower one is not forgotten to be lower
        (tmp_path / "revoked").write_text(host.get("chest").bundle.digest)
        host.reload()
        wait_for(lambda: states(host) == ["active", "rejected"])
        wait_for(lambda: alarms(daemon) == {"model-rolled-back"})
        (tmp_path / "revoked").write_text(host.get("chest").bundle.digest)
        host.reload()
        wait_for(lambda: not daemon.services.readiness.ready)
        with pytest.raises(IntegrityError, match="revoked"):
            host.get("chest").submit(frame(1)).result(WAIT_S)
        (tmp_path / "revoked").write_text("no digest")
        host.reload()
        assert "cannot be read" in daemon.services.alarms.standing[0].text + daemon.services.alarms.standing[1].text
    with pytest.raises(InputError, match="no SHA-256"), serving(tmp_path, trust=trust):
        pytest.fail("it started without knowing what was revoked")
    (tmp_path / "revoked").write_text(open_bundle(first(tmp_path)).digest)
    with hosting(daemon.config) as again:  # up, to keep what comes in, and not ready
        wait_for(lambda: "not-ready" in alarms(again))


def test_one_that_became_older_while_it_waited_does_not_answer(tmp_path: Path) -> None:
    """9 was in order while 8 answered; 10 answered before its turn came. What an operator allowed stays allowed."""
    new_key(tmp_path / "key")
    key = read_private_key(tmp_path / "key")
    sign_bundle(open_bundle(first(tmp_path)), key, sequence=8)
    paths = {sequence: another(tmp_path, str(sequence)) for sequence in (10, 9, 7)}
    for sequence, path in paths.items():
        sign_bundle(open_bundle(path), key, sequence=sequence)
    with serving(tmp_path, trust={"keys": [tmp_path / "key.pub"]}) as (_, host):
        host.propose("chest", paths[10])
        host.propose("chest", paths[9])
        host.propose("chest", paths[7], older=True)
        assert states(host) == ["active", *["candidate"] * 3]
        with traffic(host):
            wait_for(lambda: states(host) == ["retired", "previous", "rejected", "active"])
        assert "sequence 9, after 10" in host.describe("chest")["versions"][2]["reason"]


@pytest.mark.parametrize("which", ["graph", "worse"])
def test_a_version_that_answers_wrongly_is_rejected(tmp_path: Path, which: str) -> None:
    """Of the first the golden vectors say so; the second has its own, and the active version disagrees with it."""
    bad = another(tmp_path, "bad", boundary=0.5 if which == "graph" else 0.2)
    if which == "graph":
        reseal(bad, files={"graphs/float.onnx": classifier(0.9)})
    with serving(tmp_path) as (daemon, host), traffic(host) as ends:
        host.propose("chest", bad)
        wait_for(lambda: states(host) == ["active", "rejected"])
        reason = host.describe("chest")["versions"][1]["reason"]
        assert ("golden" if which == "graph" else "otherwise") in reason
        wait_for(lambda: alarms(daemon) == {"model-rejected"})
        assert daemon.services.readiness.ready
        assert host.get("chest").version == "1"
    assert all(not isinstance(end, EdgemedError) for end in ends)
    assert not list((tmp_path / "state/releases/chest").glob(f"{open_bundle(bad).digest}.edgemed"))


def by_digest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, slow: dict[str, int]) -> None:
    """Workers of the faulty model, each with a control and a pace of its own."""

    def made(_section: Any, bundle: Any, golden: Any) -> workers.Worker:
        control = tmp_path / f"control {bundle.digest}"
        spec = contained.worker(control, work_us=slow.get(bundle.digest, 0))
        limits = Limits(check_every_ns=golden.every_ns, backoff_ns=MS, backoff_cap_ns=MS)
        return workers.Worker(spec, limits)

    monkeypatch.setattr(workers, "worker_of", made)


def faulty_pair(tmp_path: Path) -> tuple[Path, Path]:
    one, other = (write_faulty(tmp_path / f"{name}.edgemed") for name in ("one", "other"))
    return one, reseal(other, edit=lambda manifest: manifest.update(intended_use="other"))


def test_a_slower_version_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = faulty_pair(tmp_path)
    by_digest(monkeypatch, tmp_path, {open_bundle(other).digest: 20_000})
    with serving(tmp_path, one) as (_, host), traffic(host, contained.frame):
        host.propose("chest", other)
        wait_for(lambda: states(host) == ["active", "rejected"])
        assert "where the active version takes" in host.describe("chest")["versions"][1]["reason"]


def test_a_version_that_turns_wrong_after_the_switch_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = faulty_pair(tmp_path)
    by_digest(monkeypatch, tmp_path, {})
    golden = {"every": "50ms", "believed": "10s"}
    with serving(tmp_path, one, golden=golden, trial={"watch": "1h"}) as (daemon, host):
        with traffic(host, contained.frame) as ends:
            host.propose("chest", other)
            wait_for(lambda: host.get("chest").version == "2")  # the journal says so a moment before
        assert states(host) == ["previous", "probation"]
        assert all(not isinstance(end, EdgemedError) for end in ends)
        Control(tmp_path / f"control {open_bundle(other).digest}").tell("drift")
        wait_for(lambda: host.get("chest").version == "1")
        assert states(host) == ["active", "rejected"]
        assert daemon.services.readiness.ready, "the old one was kept loaded"
        wait_for(lambda: "model-rolled-back" in alarms(daemon))
        feeds = contained.frame(7)
        assert contained.right(feeds, host.get("chest").submit(feeds).result(WAIT_S).outputs)


def test_one_that_cannot_be_compared_needs_a_word(tmp_path: Path) -> None:
    recipe = kit.RECIPE.replace("width = 256", "width = 300")
    source = kit.write_classifier(tmp_path / "other.edgemed", recipe=recipe)
    with serving(tmp_path) as (_, host), pytest.raises(InputError, match="cannot be compared"):
        host.propose("chest", source)
    with serving(tmp_path, trial={"inputs": 0}) as (_, host):
        host.propose("chest", source)
        wait_for(lambda: host.get("chest").version == "2")


def test_bundles_in_the_drop_folder_are_taken_and_bad_ones_put_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "SETTLE_NS", 100 * MS)
    with serving(tmp_path, trial={"inputs": 0}) as (_, host):
        inbox = tmp_path / "state/candidates/chest"
        source = another(tmp_path, "second")
        shutil.copytree(source, inbox / "b.edgemed")
        shutil.copytree(source, inbox / "a.edgemed")
        (inbox / "a.edgemed/golden.npz").write_bytes(b"not it")
        wait_for(lambda: host.get("chest").version == "2")
        wait_for(lambda: [path.name for path in inbox.iterdir()] == ["a.edgemed.refused"])


def test_a_restart_comes_up_with_what_the_journal_says(tmp_path: Path) -> None:
    second = another(tmp_path, "second")
    with serving(tmp_path) as (_, host):
        host.propose("chest", second)
        wait_for(lambda: host.describe("chest")["candidate"] == "2")
    with serving(tmp_path) as (_, host):  # ended in the middle of the trial
        assert host.get("chest").version == "1"
        with traffic(host):
            wait_for(lambda: host.get("chest").version == "2")
    orphan = tmp_path / "state/releases/chest" / f"{'0' * 64}.edgemed"
    orphan.mkdir()
    with serving(tmp_path) as (_, host):  # the configuration still names the first one
        assert host.get("chest").version == "2"
        assert not orphan.exists()
        wait_for(lambda: states(host) == ["previous", "active"])
    active = tmp_path / "state/releases/chest" / f"{open_bundle(second).digest}.edgemed"
    (active / "golden.npz").chmod(0o644)
    (active / "golden.npz").write_bytes(b"rotten")
    with serving(tmp_path) as (daemon, host):
        assert host.get("chest").version == "1"
        assert "model-rolled-back" in alarms(daemon)
    rotten = tmp_path / "state/releases/chest" / f"{open_bundle(first(tmp_path)).digest}.edgemed/golden.npz"
    rotten.chmod(0o644)
    rotten.write_bytes(b"rotten")
    with serving(tmp_path) as (_, host):  # the configured one is the same, and whole
        assert (host.get("chest").version, open_bundle(rotten.parent).digest) == ("1", host.get("chest").bundle.digest)
    (tmp_path / "state/journal.sqlite3").unlink()  # lost: what answered is known beside it, too
    with serving(tmp_path, another(tmp_path, "third")) as (_, host):
        assert host.get("chest").bundle.digest == open_bundle(first(tmp_path)).digest
        wait_for(lambda: len(states(host)) == 2)  # the configured one waits for its trial


def test_a_disk_that_is_full_keeps_no_version_from_answering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise ResourceError("The disk is full.", "Free some space.")

    with serving(tmp_path, trial={"inputs": 0, "watch": "1h"}) as (_, host):
        with monkeypatch.context() as patched:
            patched.setattr(store.BundleStore, "remember", full)
            host.propose("chest", another(tmp_path, "second"))
            wait_for(lambda: host.get("chest").version == "2")
        assert states(host) == ["previous", "probation"]
        with monkeypatch.context() as patched:
            patched.setattr(releases, "roll_back", full)
            host.roll_back("chest")
            wait_for(lambda: host._loops.beats["releases"].failures)
        wait_for(lambda: host.get("chest").version == "1")
        assert states(host) == ["active", "rejected"]


@pytest.mark.parametrize("point", ["copied", "switching"])
def test_a_kill_in_the_middle_leaves_one_version_or_the_other(tmp_path: Path, point: str) -> None:
    """SIGKILL after the copy, and inside the transaction of the switch."""
    second = another(tmp_path, "second")
    done = subprocess.run(
        [sys.executable, "-m", "tests.serve.models.crash", tmp_path, first(tmp_path), second, point],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    store_of = tmp_path / "state/releases/chest"
    with serving(tmp_path, trial={"inputs": 0}) as (daemon, host):
        kept = {path.stem for path in store_of.glob("*.edgemed")}
        if point == "copied":  # nobody was told that it was taken
            assert (host.get("chest").version, states(host), len(kept)) == ("1", ["active"], 1)
        else:  # it was proposed: it goes on by itself
            wait_for(lambda: states(host) == ["previous", "active"])
            assert kept == {open_bundle(first(tmp_path)).digest, open_bundle(second).digest}
        assert daemon.services.readiness.ready
        assert host.get("chest").submit(frame(1)).result(WAIT_S).info.bundle_digest == host.get("chest").bundle.digest
