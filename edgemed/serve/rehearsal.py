"""A site's configuration made harmless: the same models, matching and results, and nobody outside is spoken to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgemed.base.errors import InputError
from edgemed.serve.config import Config
from edgemed.serve.config.daemon import AuditSection
from edgemed.serve.config.destinations import Destination, DicomDestination
from edgemed.serve.config.inlets import DicomSection, HttpSection, Peer
from edgemed.serve.config.models import ModelSection
from edgemed.serve.outlets.plan import DICOM, made, wanted

RECEIVER: Final = "REPLAYED"
"""AE title of the receiver that stands in for every destination."""

_LOOPBACK: Final = "127.0.0.1"
_MODALITY: Final = "MODALITY"
_FORWARDS: Final = ("dicom", "dicomweb", "folder")


@dataclass(frozen=True)
class Rehearsal:
    """What the daemon is given, and what differs from the site.

    Attributes:
        config: listens on loopback at ports of the system's choice; its only destination is the receiver.
        calling: AE title of the peer that images are sent as.
        called: AE title of the daemon.
        differs: sentences on what is not as at the site.
    """

    config: Config
    calling: str
    called: str
    differs: tuple[str, ...]


def rehearse(config: Config, state: Path, receiver: int) -> Rehearsal:
    """Take everything out that reaches beyond this machine, or into the site's own state.

    What is named here is kept; a section that the schema gains is left out until somebody thinks of it.

    Args:
        config: of the site.
        state: a folder that is thrown away.
        receiver: port on loopback of what stands in for every destination.

    Raises:
        InputError: no peer may send.
    """
    peer = _peer(config.dicom)
    destinations = tuple(stand_in(each, receiver) for each in config.destinations)
    kept = {each.name: each for each in destinations if each is not None}
    made_harmless = Config(
        daemon=config.daemon.model_copy(update={"state": state}),
        dicom=_inlet(config.dicom, peer),
        http=HttpSection(host=_LOOPBACK, port=0),
        models=tuple(_model(model, kept) for model in config.models),
        destinations=tuple(kept.values()),
        spool=config.spool,
        golden=config.golden,
        trust=config.trust,
        audit=AuditSection(),
        thermal=config.thermal,
        log=config.log,
    )
    assert made_harmless.dicom is not None
    return Rehearsal(made_harmless, peer.ae_title, made_harmless.dicom.ae_title, tuple(_differs(config, kept)))


def stand_in(destination: Destination, receiver: int) -> DicomDestination | None:
    """The receiver under the name of a destination; `None` where that takes nothing of DICOM."""
    kinds = tuple(kind for kind in wanted(destination) if kind in DICOM)
    if not kinds:
        return None
    return DicomDestination(
        name=destination.name,
        ae_title=RECEIVER,
        host=_LOOPBACK,
        port=receiver,
        calling=destination.calling if isinstance(destination, DicomDestination) else None,
        results=kinds,
        forward=destination.forward and destination.kind in _FORWARDS,
        commitment=False,
        retry=destination.retry,
    )


def _peer(section: DicomSection | None) -> Peer:
    """Who sends: the first that may, so that matching by its title goes on."""
    if section is None:
        return Peer(ae_title=_MODALITY, addresses=(_LOOPBACK,))
    senders = [peer for peer in section.peers if "store" in peer.may]
    if not senders:
        raise InputError("No peer of [dicom] may store images.", 'Add one with "store" in `may`.')
    return senders[0].model_copy(update={"addresses": (_LOOPBACK,), "port": None})


def _inlet(section: DicomSection | None, peer: Peer) -> DicomSection:
    here: dict[str, Any] = {"host": _LOOPBACK, "port": 0, "tls": None, "peers": (peer,)}
    return DicomSection(**here) if section is None else section.model_copy(update=here)


def _model(model: ModelSection, kept: dict[str, DicomDestination]) -> ModelSection:
    """The same, sending to the destinations that are left and take something of it."""
    kinds = set(made(model))
    names = tuple(name for name in model.send_to if name in kept and kinds & set(wanted(kept[name])))
    return model.model_copy(update={"send_to": names})


def _differs(config: Config, kept: dict[str, DicomDestination]) -> Iterator[str]:
    left_out = [each for each in config.destinations if each.name not in kept]
    if kept:
        yield f"the network to {_listed(list(kept))} and what they do: a receiver on this machine took their place"
    for each in config.destinations:
        if each.name in kept and each.kind != "dicom":
            yield f"delivery by {each.kind} to {each.name}: it was by C-STORE here"
        if isinstance(each, DicomDestination) and each.commitment:
            yield f"storage commitment of {each.name}"
        if isinstance(each, DicomDestination) and each.tls is not None:
            yield f"TLS to {each.name}"
    for each in left_out:
        yield f"delivery to {each.name} ({each.kind}): nothing was sent there"
    if config.dicom is not None and config.dicom.tls is not None:
        yield "TLS of the modality's association"
    if config.folders or config.live:
        yield "watched folders and live sources: they were off"
    yield "versions of models that were taken in since: the bundles of the configuration answered"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
