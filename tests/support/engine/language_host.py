"""The Python language host: `pulumi-language-python`. The real one is a Go program that is not to be had as a module.

It runs `__main__.py` of the program's folder in this process, by the runtime of the SDK's Automation API.
Source: pulumi SDK 3.272, `pulumi.automation._server` (private, hence pinned).
"""

import os
import runpy
import sys
from pathlib import Path
from typing import Any

from pulumi.automation._server import LanguageServer
from pulumi.runtime.proto import language_pb2, language_pb2_grpc

from tests.support.engine.provider import serve


class Host(LanguageServer):
    """Runs programs from files; has nothing to say of packages, plugins and prompts."""

    def __init__(self) -> None:
        super().__init__(lambda: None)

    def Run(self, request: Any, context: Any) -> Any:
        folder = Path(request.info.program_directory)
        os.chdir(request.pwd or folder)
        sys.path[0] = str(folder)  # as Python does for a script

        def program() -> None:
            runpy.run_path(str(folder / request.info.entry_point / "__main__.py"), run_name="__main__")

        self.program = program
        return super().Run(request, context)  # type: ignore[no-untyped-call]

    def Handshake(self, request: Any, context: Any) -> Any:
        return language_pb2.LanguageHandshakeResponse()

    def GetProgramDependencies(self, request: Any, context: Any) -> Any:
        return language_pb2.GetProgramDependenciesResponse()

    def RuntimeOptionsPrompts(self, request: Any, context: Any) -> Any:
        return language_pb2.RuntimeOptionsResponse()


if __name__ == "__main__":
    serve(lambda server: language_pb2_grpc.add_LanguageRuntimeServicer_to_server(Host(), server))
