from __future__ import annotations

from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).parents[2]
PROTO = "autoglm_protocol/grpc/autoglm.proto"


def test_the_committed_stubs_are_those_of_the_proto_file(tmp_path: Path):
    """If not: make proto."""
    includes = [f"-I{ROOT / 'protocol'}", f"-I{Path(grpc_tools.__file__).parent / '_proto'}"]
    outputs = [f"--{kind}={tmp_path}" for kind in ("python_out", "pyi_out", "grpc_python_out")]
    assert protoc.main(["protoc", *includes, *outputs, PROTO]) == 0

    for made in (tmp_path / PROTO).parent.iterdir():
        assert made.read_text() == (ROOT / "protocol" / PROTO).with_name(made.name).read_text()
