"""Regenerate the Python module of `ext_proc.proto`: `python -m services.extproc.proto.generate`.

Needs grpcio-tools 1.71, the newest whose output loads on protobuf 5.29 as well as on 6.
"""

import sys
from importlib import metadata, resources
from pathlib import Path

FILE = "services/extproc/proto/ext_proc.proto"
GENERATOR = "1.71."


def main() -> int:
    """Write `ext_proc_pb2.py` and `ext_proc_pb2.pyi` next to the proto; return protoc's exit code."""
    version = metadata.version("grpcio-tools")
    if not version.startswith(GENERATOR):
        print(f"grpcio-tools {version} found: install grpcio-tools=={GENERATOR}*", file=sys.stderr)
        return 2
    from grpc_tools import protoc  # type: ignore[import-untyped]  # has no stubs

    root = Path(__file__).parents[3]
    include = resources.files("grpc_tools") / "_proto"
    code: int = protoc.main(
        ["protoc", f"-I{root}", f"-I{include}", f"--python_out={root}", f"--pyi_out={root}", str(root / FILE)]
    )
    if code == 0:
        _complete_types(root / FILE.replace(".proto", "_pb2.pyi"))
    return code


def _complete_types(stub: Path) -> None:
    """Give protoc's bare `Mapping` its arguments, which mypy's strict mode asks for."""
    text = stub.read_text()
    text = text.replace("_Mapping]", "_Mapping[str, _Any]]").replace(
        "from typing import ", "from typing import Any as _Any, "
    )
    stub.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
