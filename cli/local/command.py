"""`penstock local`: serve an environment on this machine, from what the program declares."""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cli.errors import UsageError

EXAMPLES = """\
examples:
  penstock local up                       serve the environment `local` until Ctrl-C
  penstock local up --detach              return when all is ready
  penstock local up --port 8080 --replicas 1
  penstock local status                   what runs, where, and what has no effect here
  penstock local logs body-router -f      follow one process; without a name, all of them
  penstock local down

exit status: 0 all is well, 1 not running, running already, or a piece did not start, 2 wrong usage or declaration

State and logs are in .penstock/<environment>, or below $PENSTOCK_STATE_DIR. Settings of the simulator are taken from
$PENSTOCK_SIM_*; of a real vLLM from $PENSTOCK_VLLM (executable) and $PENSTOCK_VLLM_MODEL (path or hub name).
"""

_TAIL_LINES = 40


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand. Imports nothing heavy: that is left to `run`."""
    parser = subparsers.add_parser(
        "local",
        help="serve an environment behind a real Envoy on this machine",
        description="Run what the program declares for an environment: Envoy, callouts, pickers, model replicas.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_up(_command(commands, "up", _up, "start and serve"))
    _command(commands, "down", _down, "stop everything")
    status = _command(commands, "status", _status, "show what runs, and what has no effect here")
    status.add_argument("--verbose", action="store_true", help="list what is declared but has no effect here")
    status.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    logs = _command(commands, "logs", _logs, "show logs")
    logs.add_argument("piece", nargs="?", metavar="PIECE", help="a name of `status`, or access, supervisor")
    logs.add_argument("-f", "--follow", action="store_true", help="go on with what is written from now on")


def _command(commands: Any, name: str, function: Any, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text)
    parser.add_argument("--env", default="local", metavar="E", help="environment, names Pulumi.E.yaml (default: local)")
    parser.add_argument("--root", type=Path, metavar="DIR", help="the project's folder (default: found upward)")
    parser.set_defaults(run=function)
    return parser


def _add_up(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=_port, metavar="N", help="port of the gateway (default: a free one)")
    parser.add_argument("--replicas", type=_count, metavar="N", help="replicas of each model replica set")
    parser.add_argument("--engine", choices=("simulator", "vllm"), default="simulator", help="what serves the models")
    parser.add_argument("-d", "--detach", action="store_true", help="return when all is ready")
    parser.add_argument("--verbose", action="store_true", help="list what is declared but has no effect here")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)


def _port(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 1 to 65535, got {text!r}")
    return int(text)


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 100:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 100, got {text!r}")
    return int(text)


def _where(args: argparse.Namespace) -> tuple[Path, Any]:
    """Return the project's folder and the environment's state folder."""
    import os

    from cli.graph.project import find_root
    from cli.local.state import StateDir

    if args.root and not (args.root / "Pulumi.yaml").is_file():
        raise UsageError(f"--root: there is no Pulumi.yaml in {args.root}. Name the project's folder")
    root = args.root.resolve() if args.root else find_root()
    return root, StateDir.of(args.env, root, os.environ)


def _up(args: argparse.Namespace) -> int:
    from cli.local.up import run

    root, state_dir = _where(args)
    return run(args, root, state_dir)


def _down(args: argparse.Namespace) -> int:
    from cli.local.up import stop

    _, state_dir = _where(args)
    if not state_dir.running():
        killed = state_dir.end_survivors()
        print(f"`{args.env}` is not running" + (f"; ended {', '.join(killed)}, left over" if killed else ""))
        return 0
    state = state_dir.read()
    if state is None:
        raise UsageError(f"`{args.env}` is just starting or stopping; try again in a moment")
    if not stop(int(state["pid"]), state_dir):
        print(f"`{args.env}` did not stop by itself and was killed")
    print(f"stopped `{args.env}`")
    return 0


def _status(args: argparse.Namespace) -> int:
    from cli.local import output

    _, state_dir = _where(args)
    running = state_dir.running()
    if not running:
        state_dir.end_survivors()
    state = state_dir.read() if running else None
    if state is None:
        if args.json:
            print(json.dumps({"environment": args.env, "endpoint": None, "phase": "stopped", "pieces": []}))
        else:
            print(f"`{args.env}` is not running. Start it with: penstock local up --env {args.env}")
        return 1
    if args.json:
        print(json.dumps(output.public(state), indent=2))
    else:
        print(f"`{args.env}` is {state['phase']} at {state['endpoint']}\n\n{output.table(state)}\n")
        print(output.not_realized(state) if args.verbose else output.not_realized_lines(state))
    return 0


def _logs(args: argparse.Namespace) -> int:
    _, state_dir = _where(args)
    files = {path.stem: path for path in sorted(state_dir.logs.glob("*.log"))}
    if state_dir.supervisor_log.exists():
        files["supervisor"] = state_dir.supervisor_log
    if args.piece:
        if args.piece not in files:
            raise UsageError(f"no log of {args.piece!r}; there are: {', '.join(files) or 'none'}")
        files = {args.piece: files[args.piece]}
    width = max((len(name) for name in files), default=0) if len(files) > 1 else 0
    positions: dict[str, int] = {}
    while True:
        for name, path in files.items():
            for line in _new_lines(name, path, positions, whole=args.piece is not None):
                print(f"{name:<{width}} | {line}" if width else line)
        sys.stdout.flush()
        if not args.follow:
            return 0
        time.sleep(0.2)


def _new_lines(name: str, path: Path, positions: dict[str, int], *, whole: bool) -> Iterator[str]:
    """Yield complete lines written since the last call; at first the whole file or its end."""
    try:
        with path.open("rb") as file:
            file.seek(positions.get(name, 0))
            text = file.read()
    except FileNotFoundError:
        return
    complete = text[: text.rfind(b"\n") + 1]
    first = name not in positions
    positions[name] = positions.get(name, 0) + len(complete)
    lines = complete.decode("utf-8", "replace").splitlines()
    yield from lines if whole or not first else lines[-_TAIL_LINES:]
