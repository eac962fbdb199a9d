"""The whole of `bedside.toml`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from edgemed.base.errors import InputError
from edgemed.base.toml import read_toml
from edgemed.serve.config.daemon import (
    AuditSection,
    DaemonSection,
    GoldenSection,
    LogSection,
    SpoolSection,
    ThermalSection,
    TrustSection,
)
from edgemed.serve.config.destinations import Destination
from edgemed.serve.config.inlets import DicomSection, FolderSection, HttpSection, LiveSection
from edgemed.serve.config.models import ModelSection
from edgemed.serve.config.section import Section


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
