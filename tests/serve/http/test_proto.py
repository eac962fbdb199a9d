"""The compiled description is that of the shipped one."""

from __future__ import annotations

from pathlib import Path

from edgemed.serve.http.proto import Proto
from scripts.make_proto import COMPILED, compile_to


def test_compiling_it_again_gives_the_same(tmp_path: Path) -> None:
    again = tmp_path / "again.binpb"
    compile_to(again)
    assert again.read_bytes() == COMPILED.read_bytes()


def test_it_has_the_whole_service() -> None:
    proto = Proto()
    names = {"ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer"}
    assert set(proto.methods) == names
    assert proto.message("InferParameter")(bool_param=True).WhichOneof("parameter_choice") == "bool_param"
