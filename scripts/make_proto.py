"""Compile the protocol's description for gRPC: `make proto`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "edgemed" / "serve" / "http" / "proto"
SOURCE = FOLDER / "open_inference_grpc.proto"
COMPILED = FOLDER / "open_inference_grpc.binpb"


def compile_to(target: Path) -> None:
    """Write the descriptor set."""
    # in a process of its own: it brings a protobuf that crashes beside another library's, as TensorFlow's is
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{FOLDER}", f"--descriptor_set_out={target}", SOURCE.name]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    compile_to(COMPILED)
