"""The `penstock` command: finds the subcommand, runs it, and turns errors into messages.

Each subcommand's module offers `add_parser(subparsers)` and sets `run`, a function from the parsed arguments to the
exit status. Modules are imported only when their subcommand is asked for, so that none can slow or break another.
"""

import argparse
import importlib
import importlib.metadata
import os
import sys
import sysconfig
import traceback
from collections.abc import Sequence

from cli.errors import UsageError

COMMANDS = {
    "preview": ("cli.graph.command", "show what an environment declares, and check its custom resources"),
    "diagram": ("cli.diagram.command", "draw what an environment declares as SVG"),
    "local": ("cli.local.command", "serve an environment behind a real Envoy on this machine"),
    "policy": ("cli.policy.command", "replay recorded requests against a changed configuration"),
    "keys": ("cli.manage.keys", "list, issue, rotate and revoke keys"),
    "products": ("cli.manage.products", "show API products and what is declared"),
    "apps": ("cli.manage.apps", "create apps, and give them products"),
    "developers": ("cli.manage.developers", "show developers"),
    "teams": ("cli.manage.teams", "show teams"),
    "usage": ("cli.manage.usage", "show requests, tokens and costs"),
    "statement": ("cli.manage.statement", "show what a month costs"),
    "export": ("cli.manage.export", "export the store of API management as JSON lines"),
    "import": ("cli.manage.import_", "import an export into an empty store"),
}
"""Subcommand -> module, help."""

EXAMPLES = """\
examples:
  penstock preview              what the environment `local` declares, and whether it is valid
  penstock preview --env prod   another environment
  penstock diagram > local.svg  networks, gateway, pools and the way of a request as a picture
  penstock local up             serve the environment `local` on this machine
  penstock usage --by team      requests, tokens and costs of a running environment
  penstock COMMAND --help       all options of a command
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's) and return the exit status.

    0 is success, 1 a negative result, 2 wrong usage or configuration or a failed program, 130 an interrupt.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        args = _parser(arguments).parse_args(arguments)
        status = int(args.run(args) or 0)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of a pipe has gone, e.g. `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - the last resort: a message instead of a traceback
        return _report(error)
    return status


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="penstock",
        description="One private, OpenAI-compatible endpoint in front of self-hosted models: preview and run it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"penstock {importlib.metadata.version('penstock')}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    asked = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, (module, help_) in COMMANDS.items():
        if name == asked:
            importlib.import_module(module).add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=help_)
    return parser


def _report(error: Exception) -> int:
    """Print `error` to stderr and return 2. `PENSTOCK_TRACEBACK=1` shows where it came from."""
    if os.environ.get("PENSTOCK_TRACEBACK"):
        traceback.print_exception(error)
    for message in _messages(error):
        print(f"penstock: {message}", file=sys.stderr)
    return 2


def _messages(error: Exception) -> Sequence[str]:
    if isinstance(error, UsageError):
        return error.messages
    from penstock.errors import PenstockError

    if isinstance(error, PenstockError):
        return [str(error)]
    foreign = ("<", sysconfig.get_path("stdlib"))
    places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    own = [place for place in places if "site-packages" not in place[0] and not place[0].startswith(foreign)]
    where = f" ({own[-1][0]}:{own[-1][1]})" if own else ""
    return [f"{type(error).__name__}: {error}{where}. Set PENSTOCK_TRACEBACK=1 for the whole traceback"]


if __name__ == "__main__":
    sys.exit(main())
