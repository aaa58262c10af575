"""What the management commands' parsers share."""

import argparse
import re
import time
from typing import Any

from cli.errors import UsageError

EPILOG = """\
Which admin API: the environment that runs on this machine (--env, default local), or --url or $PENSTOCK_ADMIN_URL
with a personal key or the admin token in $PENSTOCK_ADMIN_TOKEN or in --token-file.

exit status: 0 success, 2 wrong usage, or the admin API refused
"""

SECONDS = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


def group(subparsers: Any, name: str, help_: str, examples: str) -> Any:
    """Add a command that has subcommands; return where they are added."""
    parser = subparsers.add_parser(
        name,
        help=help_,
        description=f"{help_[0].upper()}{help_[1:]}, over the admin API.",
        epilog=f"examples:\n{examples}\n{EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser.add_subparsers(title="commands", metavar="COMMAND", required=True)


def single(subparsers: Any, name: str, function: Any, help_: str, examples: str) -> argparse.ArgumentParser:
    """Add a command without subcommands."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name,
        help=help_,
        description=f"{help_[0].upper()}{help_[1:]}, over the admin API.",
        epilog=f"examples:\n{examples}\n{EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return _finished(parser, function)


def command(commands: Any, name: str, function: Any, help_: str) -> argparse.ArgumentParser:
    """Add a subcommand with the options that say which API."""
    return _finished(commands.add_parser(name, help=help_, description=help_), function)


def _finished(parser: argparse.ArgumentParser, function: Any) -> argparse.ArgumentParser:
    which = parser.add_argument_group("which admin API")
    which.add_argument("--env", metavar="E", help="an environment that runs on this machine (default: local)")
    which.add_argument("--url", metavar="URL", help="another one (default: $PENSTOCK_ADMIN_URL)")
    which.add_argument("--token-file", metavar="FILE", help="holds the token (default: $PENSTOCK_ADMIN_TOKEN)")
    which.add_argument("--ca-file", metavar="FILE", help="authority of its certificate, PEM")
    which.add_argument("--insecure-skip-verify", action="store_true", help="do not check its certificate")
    which.add_argument("--insecure-plain-http", action="store_true", help="allow http:// to other machines")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(run=function)
    return parser


def scope(text: str) -> tuple[str, str]:
    """Return organization and name of `ORGANIZATION/NAME`."""
    organization, slash, name = text.partition("/")
    if not slash or not organization or not name:
        raise argparse.ArgumentTypeError(f"expected ORGANIZATION/NAME, for example acme/chat, got {text!r}")
    return organization, name


def duration(text: str) -> int:
    """Return seconds of `30m`, `12h`, `7d`, `2w` or plain seconds."""
    found = re.fullmatch(r"(\d{1,9})([mhdw]?)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"expected a time such as 30m, 12h, 7d or 2w, got {text!r}")
    return int(found[1]) * SECONDS.get(found[2], 1)


def moment(text: str | None) -> str | None:
    """Return what `--since` or `--until` means to the API: `7d` is that long ago, all else goes as it is."""
    found = re.fullmatch(r"(\d{1,6})([mhdw])", text or "")
    return str(int(time.time()) - int(found[1]) * SECONDS[found[2]]) if found else text


def parse_by(values: list[str]) -> list[str]:
    """Return the dimensions of `--by`, repeated or separated by commas."""
    names = [name.strip() for value in values for name in value.split(",")]
    if not all(names):
        raise UsageError("--by: expected names separated by commas, for example team,model")
    return list(dict.fromkeys(names))
