"""The shipped profiles agree with each other and with what they claim; names that are near are offered."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from edgemed.base.errors import InputError
from edgemed.base.resources import shipped
from edgemed.base.toml import read_toml
from edgemed.device.profile import DeviceProfile, load_profile, read_profile, shipped_profiles, supports_int8
from edgemed.graph.tensorrt import parser_of

PROFILES = shipped_profiles()
EACH = pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.id)
MODULES = [
    "nano",
    "tx2",
    "xavier-nx",
    "agx-xavier",
    "orin-nano-4gb",
    "orin-nano-8gb",
    "orin-nx-8gb",
    "orin-nx-16gb",
    "agx-orin-32gb",
    "agx-orin-64gb",
    "igx-orin",
    "thor-t5000",
    "thor-t4000",
    "rtx-ampere",
    "rtx-ada",
    "rtx-blackwell",
]
MINIMAL = """
schema = "edgemed/device-profile/1"
name = "A board"
kind = "jetson"
soc = "tegra234"
compute_capability = "8.7"
int8 = true
"""


def test_every_module_has_a_profile() -> None:
    assert {profile.id for profile in PROFILES} == set(MODULES)


@EACH
def test_profile_follows_the_json_schema(profile: DeviceProfile) -> None:
    schema = DeviceProfile.model_json_schema(by_alias=True)
    jsonschema.Draft202012Validator(schema).validate(read_toml(shipped("profiles")[profile.id]))


@EACH
def test_int8_follows_the_compute_capability(profile: DeviceProfile) -> None:
    assert profile.int8 == supports_int8(profile.compute_capability)


@EACH
def test_dla_is_driven_only_where_there_is_one(profile: DeviceProfile) -> None:
    if profile.dla_cores == 0:
        assert not [row.jetpack for row in profile.software if row.dla]


@EACH
def test_software_rows_run_from_old_to_new(profile: DeviceProfile) -> None:
    releases = [tuple(int(n) for n in name.split(".")) for row in profile.software for name in row.jetpack]
    assert releases == sorted(releases)


def test_board_ids_name_one_profile_each() -> None:
    owners = defaultdict(list)
    for profile in PROFILES:
        for board in profile.board_ids:
            owners[board].append(profile.id)
    assert not {board: ids for board, ids in owners.items() if len(ids) > 1}


def test_a_jetpack_brings_the_same_software_everywhere() -> None:
    facts: dict[str, set[tuple[Any, ...]]] = defaultdict(set)
    for profile in PROFILES:
        for row in profile.software:
            for release in row.jetpack:
                facts[release].add((row.l4t, row.python, row.cuda, row.cudnn, row.tensorrt, row.opset, row.bundled))
    assert not {release for release, found in facts.items() if len(found) > 1}


JETSONS = [profile for profile in PROFILES if profile.kind == "jetson"]


@pytest.mark.parametrize("profile", JETSONS, ids=lambda profile: profile.id)
def test_every_module_has_software_with_its_source(profile: DeviceProfile) -> None:
    assert profile.board_ids or profile.id == "thor-t4000"
    assert profile.software
    assert all(row.source for row in profile.software)
    assert profile.source


@pytest.mark.parametrize("profile", JETSONS, ids=lambda profile: profile.id)
def test_the_highest_opset_is_that_of_the_operator_table(profile: DeviceProfile) -> None:
    for row in profile.software:
        parser = parser_of(row.tensorrt)
        assert row.opset == parser.opset, row.jetpack
        assert row.is_verified("opset") == (parser.opset == parser.opset_possible), row.jetpack


def test_a_soc_has_one_compute_capability() -> None:
    pairs = {(profile.soc, profile.compute_capability) for profile in PROFILES}
    assert len(pairs) == len({soc for soc, _ in pairs})


@pytest.mark.parametrize(
    ("name", "tensorrt", "dla"),
    [
        ("orin-nano-8gb@6.2", "10.3.0.30", False),
        ("agx-orin-64gb@6.2.1", "10.3.0.30", True),
        ("agx-orin-64gb@6.0", "8.6.2.3", True),
        ("agx-orin-64gb@7.2", "10.16.2.10", False),
        ("agx-orin-64gb@7.2.2", "11.4.1", True),
        ("thor-t5000@7.0", "10.13.3.9", False),
        ("xavier-nx@5.1.3", "8.5.2.2", True),
        ("agx-orin-64gb", "10.16.2.10", False),  # the newest that JetPack itself brings
    ],
)
def test_software_row_by_jetpack(name: str, tensorrt: str, dla: bool) -> None:
    profile, row = load_profile(name)
    assert profile.id == name.partition("@")[0]
    assert row is not None
    assert (row.tensorrt, row.dla) == (tensorrt, dla)


def test_a_profile_may_have_no_software() -> None:
    assert load_profile("rtx-ada")[1] is None


@pytest.mark.parametrize(
    ("name", "what", "hint"),
    [
        ("orin-nano-8g", "There is no device 'orin-nano-8g'.", "orin-nano-8gb"),
        ("Orin-NX-16GB", "There is no device 'Orin-NX-16GB'.", "orin-nx-16gb"),
        ("toaster", "There is no device 'toaster'.", "Known: agx-orin-32gb,"),
        ("", "There is no device ''.", "Known: "),
        ("orin-nano-8gb@6.9", "orin-nano-8gb has no JetPack '6.9'.", "6.2"),
        ("orin-nano-8gb@", "orin-nano-8gb has no JetPack ''.", "5.1"),
        ("rtx-ada@6.2", "rtx-ada has no JetPack releases.", "rtx-ada"),
        ("none.toml", "There is no device 'none.toml'.", ""),
    ],
)
def test_unknown_names_offer_near_ones(name: str, what: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        load_profile(name)
    assert caught.value.exit_code == 2
    assert caught.value.what == what
    assert hint in caught.value.hint


def test_own_profile_is_read_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL)
    profile, row = load_profile(str(path))
    assert (profile.id, profile.compute_capability, row) == ("mine", "8.7", None)


@pytest.mark.parametrize(
    ("line", "where"),
    [
        ('compute_capability = "sm87"', "compute_capability"),
        ("memory = 8", "memory"),
        ('unverified = ["colour"]', "colour"),
        ('[[figures]]\nquantity = "int8_tops"\nvalue = 0.0\nverified = true', "figures"),
        ('[[figures]]\nquantity = "int8_tops"\nvalue = 1.0', "verified"),
        (
            '[[software]]\njetpack = []\npython = "3.8"\ncuda = "11"\ntensorrt = "8.5"\nopset = 17\ndla = true',
            "jetpack",
        ),
    ],
)
def test_profile_that_breaks_the_schema_is_refused_by_field(tmp_path: Path, line: str, where: str) -> None:
    field = line.partition(" ")[0]
    path = tmp_path / "mine.toml"
    path.write_text("".join(f"{old}\n" for old in MINIMAL.splitlines() if not old.startswith(f"{field} ")) + line)
    with pytest.raises(InputError, match=where):
        read_profile(path)


def test_figures_carry_their_condition_and_certainty() -> None:
    profile, _ = load_profile("orin-nano-8gb")
    plain, boosted = (profile.figure("memory_bandwidth_gbs", condition) for condition in ("", "super"))
    assert plain is not None
    assert boosted is not None
    assert (plain.value, plain.verified) == (68, False)
    assert (boosted.value, boosted.verified) == (102, True)
    assert profile.figure("fp16_tflops") is None
    assert profile.has_unverified
    assert not load_profile("rtx-ada")[0].has_unverified


def test_profiles_round_trip_through_json() -> None:
    for profile in PROFILES:
        text = json.dumps(profile.model_dump(mode="json", by_alias=True))
        assert DeviceProfile.model_validate_json(text).model_copy(update={"id": profile.id}) == profile


@pytest.mark.parametrize(
    ("capability", "answer"),
    [("5.3", False), ("6.0", False), ("6.1", True), ("6.2", False), ("7.0", True), ("8.7", True), ("11.0", True)],
)
def test_int8_rule(capability: str, answer: bool) -> None:
    assert supports_int8(capability) == answer
