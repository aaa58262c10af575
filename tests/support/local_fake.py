"""A supervisor over tiny pieces, for tests of starting, crashing and stopping.

`python -m tests.support.local_fake STATE_DIR PIECE...`: each PIECE is a name, or `name=crash` for one that exits at
once, or `name=deaf` for one that ignores SIGTERM and has a child of its own. The first stands in for Envoy.
"""

import asyncio
import subprocess
import sys
from pathlib import Path

from cli.local.model import Check, Kind, Listener, Piece, Plan, Traffic
from cli.local.ports import PortAllocator
from cli.local.state import StateDir
from cli.local.supervisor import StartError, Supervisor

SERVER = Path(__file__).with_name("local_piece.py")


def processes_with(mark: str) -> list[str]:
    """Return the command lines of running processes that hold `mark`."""
    shown = subprocess.run(["ps", "-ww", "-eo", "pid,stat,args"], capture_output=True, text=True, check=True).stdout
    return [line for line in shown.splitlines() if mark in line and "Z" not in line.split()[1]]


def _piece(name: str, mood: str, port: int, mark: str, kind: Kind) -> Piece:
    command = (sys.executable, str(SERVER), str(port), mood, mark)
    return Piece(name=name, kind=kind, command=command, env={}, port=port, check=Check("http", port, "/"))


def main(argv: list[str]) -> int:
    """Run until told to stop. Every process has the state folder's path in its command line."""
    state_dir, ports = StateDir(Path(argv[0])), PortAllocator()
    if not state_dir.acquire():
        return 1
    state_dir.end_survivors()
    state_dir.prepare()
    specs = [spec.partition("=") for spec in argv[1:]]
    pieces = [
        _piece(name, mood or "well", ports.take(), argv[0], "callout" if index else "envoy")
        for index, (name, _, mood) in enumerate(specs)
    ]
    front, *rest = pieces
    listener = Listener(name="http", port=front.port, hostname="*", rules=())
    plan = Plan(
        environment="fake",
        pieces=tuple(rest),
        traffic=Traffic(listeners=(listener,), clusters=(), extensions=()),
        files={},
        folders=(),
        warnings=(),
        admin_port=front.port,
    )
    supervisor = Supervisor(plan, front, state_dir, cwd=Path.cwd(), start_timeout_s=20, report=print)
    try:
        asyncio.run(supervisor.run(lambda: print("all ready", flush=True)))
    except StartError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        ports.close()
        state_dir.clear()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
