"""Compile the protocol's description for gRPC: `make proto`."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "edgemed" / "serve" / "http" / "proto"
SOURCE = FOLDER / "open_inference_grpc.proto"
COMPILED = FOLDER / "open_inference_grpc.binpb"


def compile_to(target: Path) -> None:
    """Write the descriptor set."""
    from grpc_tools import protoc

    command = ["protoc", f"-I{FOLDER}", f"--descriptor_set_out={target}", SOURCE.name]
    if protoc.main(command):
        raise SystemExit("protoc failed, see above")


if __name__ == "__main__":
    compile_to(COMPILED)
