"""Schema of `bedside.toml`: what a site writes about its peers, its models and where results go.

Everything is denied that is not named. Durations and sizes are written with their unit; in Python their names carry it
(`deadline = "5s"` is `deadline_ns`, `max_object = "512MiB"` is `max_object_bytes`).
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from edgemed.base.errors import InputError, UsageError
from edgemed.base.quantity import SECOND, parse_duration, parse_size
from edgemed.base.text import PRINTABLE
from edgemed.base.toml import read_toml
from edgemed.bundle.model import RunPrecision

MINUTE = 60 * SECOND
HOUR = 60 * MINUTE


def _alias(name: str) -> str:
    return name.removesuffix("_ns").removesuffix("_bytes")


class Section(BaseModel):
    """Unknown keys are refused: a misspelt limit must not be no limit."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, alias_generator=_alias, populate_by_name=True
    )


def _quantity(parse: Any) -> BeforeValidator:
    def read(value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return parse(value)
        except UsageError as error:
            raise ValueError(str(error)) from error

    return BeforeValidator(read)


def _network(text: str) -> str:
    ip_network(text, strict=False)
    return text


def is_loopback(host: str) -> bool:
    """Whether a host that is listened on, or called, is this machine itself."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


Nanoseconds = Annotated[int, Field(ge=1), _quantity(parse_duration)]
Bytes = Annotated[int, Field(ge=1), _quantity(parse_size)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
AeTitle = Annotated[str, Field(pattern=r"^[!-\[\]-~]([ -\[\]-~]{0,14}[!-\[\]-~])?$")]
Network = Annotated[str, Field(max_length=64), AfterValidator(_network)]
Port = Annotated[int, Field(ge=0, le=65535)]
Text = Annotated[str, Field(max_length=255, pattern=PRINTABLE)]
Url = Annotated[str, Field(max_length=2048, pattern=r"^https?://[^\s]+$")]
Level = Literal["instance", "series", "study"]
ResultKind = Literal["sr", "seg", "sc", "gsps", "json"]


class DaemonSection(Section):
    """Where it keeps its journal and spool, and how it ends."""

    name: Name = "edgemed"
    state: Path = Field(description="directory of journal, spool, audit trail and keys; nobody else writes there")
    drain_ns: Nanoseconds = Field(20 * SECOND, description="for work under way when it is told to stop")
    research_use_only: bool = Field(True, description="results say so; lift it where the site has validated the use")


class Tls(Section):
    """Mutual TLS by BCP 195: 1.2 and 1.3, forward secrecy only."""

    certificate: Path
    key: Path
    ca: Path | None = Field(None, description="who signs the peers' certificates; None: peers show none")
    verify_host: bool = Field(True, description="a server's certificate must name it; false: any that `ca` has signed")

    @model_validator(mode="after")
    def _somebody_is_asked(self) -> Tls:
        if not self.verify_host and self.ca is None:
            raise ValueError("verify_host = false would trust every certificate of the world: give a ca of the site")
        return self


class Peer(Section):
    """One application entity that may talk to us. What is not named is denied."""

    ae_title: AeTitle
    addresses: Annotated[tuple[Network, ...], Field(min_length=1)]
    may: tuple[Literal["echo", "store", "commit", "mpps"], ...] = Field(
        ("echo", "store"),
        description="commit: what it asks for is kept until a destination has it; mpps: it tells which images it makes",
    )
    sop_classes: tuple[Text, ...] = Field((), description="UIDs or keywords; empty: every image storage class we know")
    associations: Annotated[int, Field(ge=1, le=1000)] = 10
    per_minute: Annotated[int, Field(ge=1)] | None = Field(None, description="objects; more are refused as busy")
    port: Port | None = Field(None, description="where storage commitment is reported to; None: the same association")

    @property
    def networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        return tuple(ip_network(text, strict=False) for text in self.addresses)


class DicomSection(Section):
    """The DICOM inlet: C-ECHO, C-STORE, storage commitment, procedure steps."""

    ae_title: AeTitle = Field("EDGEMED", description="ours")
    # a modality sends from elsewhere; peers are denied by default
    host: str = Field("0.0.0.0", description="address to listen on")  # noqa: S104
    port: Port = 11112
    tls: Tls | None = Field(None, description="None: in clear")
    associations: Annotated[int, Field(ge=1, le=1000)] = Field(25, description="at a time, of all peers")
    association_ns: Nanoseconds = Field(30 * SECOND, description="for a peer to ask for its association")
    idle_ns: Nanoseconds = Field(60 * SECOND, description="without a byte; then the association is aborted")
    max_pdu_bytes: Annotated[Bytes, Field(ge=4096, le=1 << 20)] = Field(
        131072, description="that we receive: Maximum Length"
    )
    max_object_bytes: Bytes = Field(2 << 30, description="of a data set; larger ones are refused")
    peers: tuple[Peer, ...] = ()


class HttpSection(Section):
    """Open Inference Protocol, STOW-RS, metrics and the page."""

    host: str = "127.0.0.1"
    port: Port = 8000
    grpc_port: Port | None = Field(None, description="None: no gRPC")
    names: tuple[Text, ...] = Field((), description="host names that clients use, besides the machine's own")
    tls: Tls | None = None
    tokens: Path | None = Field(None, description="file of `name role sha256-of-token` lines; None: loopback only")
    max_body_bytes: Bytes = 256 << 20
    max_requests: Annotated[int, Field(ge=1, le=10_000)] = 64
    sop_classes: tuple[Text, ...] = Field(
        (), description="that STOW-RS takes: UIDs or keywords; empty: every image storage class we know"
    )
    per_minute: Annotated[int, Field(ge=1)] | None = Field(
        None, description="objects by STOW-RS, of each token; more are refused as busy"
    )
    request_ns: Nanoseconds = Field(30 * SECOND, description="for a client to send a request, and for us to answer")

    @model_validator(mode="after")
    def _closed(self) -> HttpSection:
        if self.tokens is None and not is_loopback(self.host):
            raise ValueError(f"without tokens, {self.host} would be open to the network: give tokens, or 127.0.0.1")
        return self


class FolderSection(Section):
    """A watched folder: a file is taken when it has not changed for a while, and removed when it is in the journal."""

    name: Name
    path: Path
    settle_ns: Nanoseconds = 2 * SECOND
    max_file_bytes: Bytes = 2 << 30


class Match(Section):
    """Which inputs a model is for. An absent line matches everything; texts are compared without regard to case."""

    called: tuple[AeTitle, ...] = ()
    calling: tuple[AeTitle, ...] = ()
    inlets: tuple[Name, ...] = Field((), description="'dicom', 'stow', or the name of a folder")
    modalities: tuple[Text, ...] = ()
    sop_classes: tuple[Text, ...] = ()
    body_parts: tuple[Text, ...] = ()
    series_description: Text | None = Field(None, description="a pattern with * and ?")


class Completeness(Section):
    """When a series or study is taken to be complete. The reason that applied stands in the journal and the result."""

    mpps: bool = Field(True, description="the images that ended procedure steps name, where peers tell of any")
    expected: bool = Field(True, description="as many images as the file's own counts say, where it says any")
    association: bool = Field(True, description="the association that brought it was released, and `after` has passed")
    after_ns: Nanoseconds = Field(2 * SECOND, description="quiet time after the association's end")
    quiet_ns: Nanoseconds = Field(60 * SECOND, description="quiet time where nothing else tells")
    reopen: bool = Field(True, description="a late image makes a new revision of the result")


class Shadow(Section):
    """A share of the traffic is run in another precision too, and the answers are compared."""

    precision: RunPrecision = "fp32"
    share: Annotated[float, Field(gt=0, le=1)] = 0.05
    tolerance: Annotated[float, Field(gt=0)] | None = Field(
        None, description="of the output range; None: 4 times what the build measured"
    )
    window: Annotated[int, Field(ge=10)] = Field(200, description="of comparisons over which an alarm is decided")
    disagree: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.05, description="share of disagreeing answers that is put up with; more, beyond chance, raises the alarm"
    )


class Trial(Section):
    """What a new version of a model goes through before it answers, and for a while after."""

    inputs: Annotated[int, Field(ge=0, le=100_000)] = Field(
        50, description="live inputs on which it is compared with the active version; 0: golden vectors alone decide"
    )
    disagree: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1, description="share of them that may be decided otherwise"
    )
    tolerance: Annotated[float, Field(gt=0)] = Field(
        0.1, description="of the output range: how far outputs that decide nothing (a regression) may differ"
    )
    slower: Annotated[float, Field(ge=1)] = Field(1.5, description="times the active version's median time")
    watch_ns: Nanoseconds = Field(10 * MINUTE, description="after the switch; meanwhile the old version is kept loaded")
    failures: Annotated[int, Field(ge=1)] = Field(
        3, description="requests that the worker failed, and lost workers, in that time that bring the old version back"
    )


class ModelSection(Section):
    """One model at the bedside."""

    name: Name
    bundle: Path
    runner: Literal["auto", "tensorrt", "onnxruntime"] = "auto"
    precision: RunPrecision | None = None
    when_lost: Literal["refuse", "onnxruntime", "queue"] = Field(
        "queue", description="while its worker does not answer: refuse, answer on the CPU, or wait"
    )
    hang_ns: Nanoseconds | None = Field(
        None, description="without a step its worker hangs and is killed; None: 5 s on TensorRT, 60 s on a CPU"
    )
    level: Level = "instance"
    match: Match = Match()
    deadline_ns: Nanoseconds = Field(30 * SECOND, description="from the last image to the result")
    late: Literal["deliver", "drop"] = Field("deliver", description="a result after its deadline: marked late, or none")
    batch: Annotated[int, Field(ge=1, le=1024)] | None = Field(None, description="None: what the bundle allows")
    results: Annotated[tuple[ResultKind, ...], Field(min_length=1)] = ("sr",)
    send_to: tuple[Name, ...] = ()
    notify_refusals: bool = Field(True, description="an image that is not analysed is answered by an SR that says why")
    completeness: Completeness = Completeness()
    shadow: Shadow | None = None
    trial: Trial = Trial()
    max_ood: Annotated[float, Field(gt=0)] | None = Field(
        None, description="out-of-distribution score above which an input is not analysed"
    )
    hot: Path | None = Field(None, description="a smaller bundle that takes over while the device throttles")


class LiveSection(Section):
    """A camera or stream, analysed as it comes: its frames are counted, not kept."""

    name: Name
    source: Text = Field(description="/dev/video0, rtsp://…, gst:PIPELINE, or a file")
    model: Name
    policy: Text = "latest"
    stale_ns: Nanoseconds = Field(500_000_000, description="a result older than this is shown as stale, then removed")
    loop: bool = Field(False, description="play a file over and over, in its own time: for demonstrations")


class Retry(Section):
    """Between tries to deliver: doubling with jitter, up to a cap; then it is given up, kept, and alarmed."""

    first_ns: Nanoseconds = 5 * SECOND
    cap_ns: Nanoseconds = 10 * MINUTE
    give_up_ns: Nanoseconds = 72 * HOUR
    timeout_ns: Nanoseconds = 30 * SECOND


class _Destination(Section):
    name: Name
    results: tuple[ResultKind, ...] | None = Field(None, description="None: all that the destination can carry")
    forward: bool = Field(False, description="the images themselves are sent on, too, byte for byte")
    retry: Retry = Retry()


class DicomDestination(_Destination):
    """A PACS or viewer that takes C-STORE."""

    kind: Literal["dicom"] = "dicom"
    ae_title: AeTitle
    host: str
    port: Annotated[int, Field(ge=1, le=65535)]
    calling: AeTitle | None = None
    tls: Tls | None = None
    commitment: bool = Field(True, description="a result is delivered when the PACS has committed itself to keep it")
    commitment_within_ns: Nanoseconds = Field(10 * MINUTE, description="then it is sent again")


class _HttpDestination(_Destination):
    url: Url
    ca: Path | None = Field(None, description="who signs the server's certificate; None: whom the system trusts")
    tls: Tls | None = Field(None, description="a certificate of ours for the server, and its `ca`; None: none is shown")

    @model_validator(mode="after")
    def _by_tls(self) -> _HttpDestination:
        if self.tls is not None and self.ca is not None:
            raise ValueError("its ca stands in tls, where there is one")
        if self.tls is not None and not self.url.startswith("https:"):
            raise ValueError(f"tls is for https, and {self.url} is none")
        return self


class DicomWebDestination(_HttpDestination):
    """A STOW-RS service."""

    kind: Literal["dicomweb"] = "dicomweb"
    token: Path | None = None


class WebhookDestination(_HttpDestination):
    """Any HTTP service: the result as JSON, signed with HMAC-SHA-256 where there is a secret."""

    kind: Literal["webhook"] = "webhook"
    secret: Path | None = None


class Hl7Destination(_Destination):
    """ORU^R01 over MLLP."""

    kind: Literal["hl7"] = "hl7"
    host: str
    port: Annotated[int, Field(ge=1, le=65535)]
    tls: Tls | None = Field(None, description="None: in clear, as most interface engines have it")
    application: Text = "EDGEMED"
    receiving: Text = ""


class FolderDestination(_Destination):
    """Files in a folder, each whole or not there."""

    kind: Literal["folder"] = "folder"
    path: Path


Destination = Annotated[
    DicomDestination | DicomWebDestination | WebhookDestination | Hl7Destination | FolderDestination,
    Field(discriminator="kind"),
]


class SpoolSection(Section):
    """How much may lie on the disk, and for how long. What is not delivered is never deleted."""

    reserve_bytes: Bytes = Field(1 << 30, description="free space below which inputs are refused")
    warn_bytes: Bytes = Field(5 << 30, description="free space below which an alarm is raised")
    keep_ns: Nanoseconds = Field(24 * HOUR, description="images and results after their end")
    keep_failed_ns: Nanoseconds | None = Field(
        None, description="inputs that failed, and quarantine; None: until somebody looks at them"
    )
    keep_events_ns: Nanoseconds = Field(400 * 24 * HOUR, description="lines of the journal on what happened when")
    keep_rows_ns: Nanoseconds = Field(
        3 * 365 * 24 * HOUR, description="what became of each input, in the journal; then in the archive"
    )


class GoldenSection(Section):
    """When golden inferences run, and for how long one is believed."""

    every_ns: Nanoseconds = MINUTE
    believed_ns: Nanoseconds = Field(3 * MINUTE, description="older than this, and the daemon is not ready")


class TrustSection(Section):
    """Whose models run here."""

    keys: tuple[Path, ...] = Field((), description="public keys (Ed25519, PEM) of those who may sign bundles")
    revoked: Path | None = Field(None, description="file of digests and key ids, one a line, that run no more")
    allow_unsigned: bool = Field(False, description="for trials: hashes protect against accident, not against intent")


class AuditSection(Section):
    """The audit trail."""

    key: Path | None = Field(None, description="Ed25519 private key that signs it; None: one is made in the state")
    segment_bytes: Annotated[Bytes, Field(ge=64 << 10, le=1 << 30)] = Field(
        64 << 20, description="a segment of the trail is closed when it has grown so long"
    )
    syslog: str | None = Field(None, description="host:port of an audit repository (RFC 5425, TLS)")
    syslog_ca: Path | None = Field(None, description="who signs its certificate; None: whom the system trusts")
    syslog_tls: Tls | None = Field(
        None, description="a certificate of ours for the repository, and its `ca`; None: none is shown"
    )

    @model_validator(mode="after")
    def _one_ca(self) -> AuditSection:
        if self.syslog_tls is not None and self.syslog_ca is not None:
            raise ValueError("the ca of syslog stands in syslog_tls, where there is one")
        return self


class ThermalSection(Section):
    """What happens as the device warms. Degrees Celsius of its hottest zone."""

    warm_c: float = 85.0
    throttled_c: float = 95.0
    hysteresis_c: Annotated[float, Field(gt=0)] = 5.0
    idle_ns: Nanoseconds | None = Field(None, description="an inference after so long without any keeps clocks up")


class LogSection(Section):
    """Structured logs, one JSON object a line, without names: identifiers are keyed pseudonyms."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "text"] = "json"


class Config(Section):
    """A whole `bedside.toml`."""

    daemon: DaemonSection
    dicom: DicomSection | None = None
    http: HttpSection = HttpSection()
    folders: tuple[FolderSection, ...] = ()
    models: Annotated[tuple[ModelSection, ...], Field(min_length=1)]
    live: tuple[LiveSection, ...] = ()
    destinations: tuple[Destination, ...] = ()
    spool: SpoolSection = SpoolSection()
    golden: GoldenSection = GoldenSection()
    trust: TrustSection = TrustSection()
    audit: AuditSection = AuditSection()
    thermal: ThermalSection = ThermalSection()
    log: LogSection = LogSection()

    @model_validator(mode="after")
    def _names_agree(self) -> Config:
        for what, names in {
            "model": [model.name for model in self.models],
            "destination": [destination.name for destination in self.destinations],
            "inlet": ["dicom", "stow", *(folder.name for folder in self.folders)],
            "live source": [live.name for live in self.live],
            "peer": [peer.ae_title for peer in (self.dicom.peers if self.dicom else ())],
        }.items():
            if twice := {name for name in names if names.count(name) > 1}:
                raise ValueError(f"two of the {what}s are named {min(twice)}")
        if "forward" in {model.name for model in self.models}:
            raise ValueError("no model may be named forward: tasks that send images on have that name")
        destinations = {destination.name for destination in self.destinations}
        for model in self.models:
            if unknown := set(model.send_to) - destinations:
                raise ValueError(f"model {model.name} sends to {min(unknown)}, which is no destination")
        for live in self.live:
            if live.model not in {model.name for model in self.models}:
                raise ValueError(f"live source {live.name} is for {live.model}, which is no model")
        from edgemed.serve.outlets.plan import problem  # it reads these sections

        if undeliverable := problem(self):
            raise ValueError(undeliverable)
        return self


def load_config(path: Path) -> Config:
    """Read a `bedside.toml`. Relative paths are relative to the folder it lies in.

    Raises:
        InputError: not TOML, or not by the schema; says where.
    """
    data = read_toml(path)
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{part}: " for part in [".".join(map(str, first["loc"]))] if part)
        what = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{path}: {where}{what}.", "See docs/serve.md for every line.") from error
    base = path.resolve().parent
    resolved: Config = _resolved(config, base)
    return resolved


def _resolved(value: Any, base: Path) -> Any:
    """The same with every path made absolute."""
    if isinstance(value, Path):
        return base / value
    if isinstance(value, tuple):
        return tuple(_resolved(item, base) for item in value)
    if isinstance(value, Section):
        changed = {name: _resolved(getattr(value, name), base) for name in type(value).model_fields}
        return value.model_copy(update=changed)
    return value
