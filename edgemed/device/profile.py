"""Device profiles: what is known of each module, and how surely it is known."""

from __future__ import annotations

import difflib
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from edgemed.base.errors import InputError
from edgemed.base.resources import find_resource, shipped
from edgemed.base.toml import read_toml

SCHEMA: Final = "edgemed/device-profile/1"

ComputeCapability = Annotated[str, Field(pattern=r"^\d{1,2}\.\d$")]
Flavour = Literal["tensorrt", "tensorrt_rtx"]
Quantity = Literal["memory_bandwidth_gbs", "int8_tops", "fp16_tflops", "fp4_tflops"]
Version = Annotated[str, Field(pattern=r"^\d+(\.\d+)*$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)


class _Marked(_Strict):
    """A table that says which of its own fields rest on a secondary or unconfirmed source."""

    unverified: tuple[str, ...] = Field((), description="fields of this table that no primary source confirms")
    source: str = ""

    @model_validator(mode="after")
    def _unverified_fields_exist(self) -> _Marked:
        unknown = set(self.unverified) - set(type(self).model_fields)
        if unknown:
            raise ValueError(f"unverified names no field of this table: {', '.join(sorted(unknown))}")
        return self

    def is_verified(self, field: str) -> bool:
        """Whether a primary source confirms `field`."""
        return field not in self.unverified


class Figure(_Strict):
    """One number of the data sheet, the condition it holds under, and how surely."""

    quantity: Quantity
    value: Annotated[float, Field(gt=0)]
    condition: str = Field("", description="power mode or engines it is stated for; empty: the default")
    sparsity: Literal["dense", "2:4", "unstated"] | None = None
    verified: bool
    source: str = ""


class PowerMode(_Marked):
    """One row of `nvpmodel`."""

    name: str
    id: Annotated[int, Field(ge=0)] | None = None
    watts: float | None = None
    gpu_mhz: float | None = None
    emc_mhz: float | None = None


class SoftwareRow(_Marked):
    """One software stack a device runs: JetPack and what it brings."""

    jetpack: tuple[Version, ...] = Field(min_length=1, description="releases with exactly this software")
    l4t: tuple[Version, ...] = ()
    python: Version
    cuda: Version
    cudnn: Version | None = None
    tensorrt: Version
    bundled: bool = Field(True, description="false: this TensorRT is installed on top of the JetPack")
    opset: int = Field(description="highest ONNX opset its parser is known to read")
    dla: bool = Field(description="whether this TensorRT drives the device's DLA")


class DeviceProfile(_Marked):
    """`profiles/<id>.toml`. A field named in `unverified` must be shown with a mark wherever it is shown."""

    schema_: Literal["edgemed/device-profile/1"] = Field(alias="schema")
    name: str
    description: str = ""
    kind: Literal["jetson", "desktop"]
    board_ids: tuple[str, ...] = Field((), description="module part numbers in the device tree, e.g. p3767-0005")
    soc: str
    compute_capability: ComputeCapability
    compute_capability_aliases: tuple[ComputeCapability, ...] = ()
    flavours: tuple[Flavour, ...] = ("tensorrt",)
    int8: bool = Field(description="whether TensorRT has INT8 kernels for this compute capability")
    dla_cores: Annotated[int, Field(ge=0)] = 0
    memory_gb: tuple[float, ...] = Field((), description="RAM of each variant, GB")
    figures: tuple[Figure, ...] = ()
    power_modes: tuple[PowerMode, ...] = ()
    software: tuple[SoftwareRow, ...] = ()
    id: str = Field("", exclude=True, description="stem of the file; not written in it")

    @field_validator("software")
    @classmethod
    def _each_jetpack_once(cls, rows: tuple[SoftwareRow, ...]) -> tuple[SoftwareRow, ...]:
        names = [release for row in rows for release in row.jetpack]
        if len(names) != len(set(names)):
            raise ValueError("a JetPack release stands in two software rows")
        return rows

    @property
    def has_unverified(self) -> bool:
        """Whether anything in this profile rests on an unconfirmed source."""
        tables: list[_Marked] = [self, *self.power_modes, *self.software]
        return any(table.unverified for table in tables) or not all(figure.verified for figure in self.figures)

    def figure(self, quantity: Quantity, condition: str = "") -> Figure | None:
        """The figure for a quantity under a condition, or None when it is not known.

        The caller looks at `Figure.verified`, and shows a figure that is not with a mark.
        """
        return next((f for f in self.figures if (f.quantity, f.condition) == (quantity, condition)), None)

    def newest_software(self) -> SoftwareRow | None:
        """The newest stack that JetPack itself brings: the last bundled row."""
        return next((row for row in reversed(self.software) if row.bundled), None)


def load_profile(name: str) -> tuple[DeviceProfile, SoftwareRow | None]:
    """Load `NAME[@JETPACK]`: a shipped profile or a `.toml` file, and one of its software rows.

    Without a JetPack the row is the newest one that JetPack itself brings; None where the profile has no rows.

    Raises:
        InputError: no such device or JetPack (near names are listed), or the file does not follow the schema.
    """
    device, at, jetpack = name.partition("@")
    profile = read_profile(_find(device))
    return profile, _software(profile, jetpack) if at else profile.newest_software()


def read_profile(path: Path) -> DeviceProfile:
    """Read one profile file; its id is the stem of its name.

    Raises:
        InputError: not TOML, or not by the schema.
        ResourceError: the file cannot be read.
    """
    data: dict[str, Any] = read_toml(path)
    try:
        return DeviceProfile.model_validate(data).model_copy(update={"id": path.stem})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(f"{path} is not a device profile: {where}: {first['msg']}.", "Correct the file.") from error


@cache
def shipped_profiles() -> tuple[DeviceProfile, ...]:
    """All profiles that ship with edgemed, by id."""
    return tuple(read_profile(path) for path in shipped("profiles").values())


def _find(device: str) -> Path:
    try:
        return find_resource("profiles", device)
    except InputError as error:
        raise InputError(f"There is no device '{device}'.", _hint(device, list(shipped("profiles")))) from error


def _software(profile: DeviceProfile, jetpack: str) -> SoftwareRow:
    known = [release for row in profile.software for release in row.jetpack]
    for row in profile.software:
        if jetpack in row.jetpack:
            return row
    if not known:
        raise InputError(f"{profile.id} has no JetPack releases.", f"Name it without '@': {profile.id}")
    raise InputError(f"{profile.id} has no JetPack '{jetpack}'.", _hint(jetpack, known))


def _hint(wanted: str, known: list[str]) -> str:
    near = difflib.get_close_matches(wanted.lower(), known, n=3, cutoff=0.5)
    if near:
        return f"Did you mean {' or '.join(near)}? `edgemed devices` lists all."
    return f"Known: {', '.join(known)}."


def supports_int8(compute_capability: str) -> bool:
    """Whether TensorRT has INT8 kernels for a GPU: compute capability 6.1, and 7.0 on.

    Original Nano (5.3) and TX2 (6.2) have none. Newer TensorRT has lost the call that could be asked
    (`platform_has_fast_int8`, gone in 11), hence the rule stands here.
    """
    major, minor = (int(part) for part in compute_capability.split("."))
    return (major, minor) == (6, 1) or major >= 7
