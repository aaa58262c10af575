"""`penstock keys`: keys of apps, and personal keys."""

import argparse
import sys
from typing import Any

from cli.errors import UsageError
from cli.manage.common import command, duration, group, scope

EXAMPLES = """\
  penstock keys list acme/chat
  penstock keys issue acme/chat --label laptop --expires-in 90d
  penstock keys rotate acme/chat k5jq3xw7n2tbm4fz --grace 1h
  penstock keys revoke acme/chat k5jq3xw7n2tbm4fz
  penstock keys issue --developer acme/ada@example.com     a personal key, for admin API and portal
"""
KEY_FILE_MODE = 0o600


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    commands = group(subparsers, "keys", "list, issue, rotate and revoke keys", EXAMPLES)
    _holder(command(commands, "list", _list, "list keys"))
    issue = _holder(command(commands, "issue", _issue, "issue a key; it is shown this once"))
    issue.add_argument("--label", default="", metavar="TEXT", help="what people call it")
    issue.add_argument("--expires-in", type=duration, metavar="TIME", help="e.g. 12h, 90d (default: never)")
    rotate = _holder(command(commands, "rotate", _rotate, "replace a key; the old one works on for a while"))
    rotate.add_argument("--grace", type=duration, metavar="TIME", help="how long, e.g. 0, 30m, 7d (default: 1d)")
    revoke = _holder(command(commands, "revoke", _revoke, "end a key at once"))
    for parser in (rotate, revoke):
        parser.add_argument("key", metavar="KEY-ID", help="the key's id (never the key itself)")
    for parser in (issue, rotate):
        parser.add_argument("--output", metavar="FILE", help="write the key into a new file that only you can read")


def _holder(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("app", nargs="?", type=scope, metavar="ORGANIZATION/APP", help="whose keys")
    parser.add_argument("--developer", type=scope, metavar="ORGANIZATION/NAME", help="personal keys of a developer")
    return parser


def _path(args: argparse.Namespace) -> str:
    from cli.manage.client import quoted

    if (args.app is None) == (args.developer is None):
        raise UsageError("name one app as ORGANIZATION/APP, or with --developer a person as ORGANIZATION/NAME")
    organization, name = args.app or args.developer
    return f"{quoted('organizations', organization, 'apps' if args.app else 'developers', name)}/keys"


def _one(args: argparse.Namespace) -> str:
    from cli.manage.client import quoted

    if args.key.startswith(("psk_", "psp_")):
        raise UsageError("KEY-ID: that is a key itself, which belongs on no command line; give its middle part")
    return f"{_path(args)}/{quoted(args.key)}"


def _list(args: argparse.Namespace) -> int:
    from cli.manage import output
    from cli.manage.client import connect

    items = list(connect(args).items(_path(args)))
    if args.json:
        output.print_json(items)
        return 0
    header = ("ID", "LABEL", "STATE", "DEVELOPER", "CREATED", "EXPIRES", "LAST USED")
    rows = [
        (
            k["id"],
            k["displayName"],
            k["state"],
            k["developer"],
            *(output.time(k[n]) for n in ("created", "expires", "lastUsed")),
        )
        for k in items
    ]
    print(output.table(header, rows))
    return 0


def _issue(args: argparse.Namespace) -> int:
    import time

    from cli.manage.client import connect

    body: dict[str, Any] = {"displayName": args.label}
    if args.expires_in is not None:
        body["expires"] = int(time.time()) + args.expires_in
    return _show(args, lambda: connect(args).post(_path(args), body))


def _rotate(args: argparse.Namespace) -> int:
    from cli.manage.client import connect

    body = {} if args.grace is None else {"graceSeconds": args.grace}
    return _show(args, lambda: connect(args).post(f"{_one(args)}/rotate", body))


def _revoke(args: argparse.Namespace) -> int:
    from cli.manage import output
    from cli.manage.client import connect

    found = connect(args).post(f"{_one(args)}/revoke")
    if args.json:
        output.print_json(found)
    else:
        print(f"revoked {found['id']}: it is refused everywhere within a second")
    return 0


def _show(args: argparse.Namespace, make: Any) -> int:
    """Make a key, and put it where it was asked for: the file is opened before, so that no key is lost."""
    import os

    from cli.manage import output

    if not args.output:
        return _print(args, make())
    try:
        file = os.open(args.output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, KEY_FILE_MODE)
    except OSError as error:
        raise UsageError(f"--output: {args.output}: {error.strerror}; name a file that is not there yet") from None
    try:
        made = make()
        os.write(file, f"{made['key']}\n".encode())
    except BaseException:
        os.unlink(args.output)
        raise
    finally:
        os.close(file)
    without = {name: value for name, value in made.items() if name != "key"}
    output.print_json(without) if args.json else print(f"key {made['id']} is in {args.output}")
    return 0


def _print(args: argparse.Namespace, made: dict[str, Any]) -> int:
    from cli.manage import output

    if args.json:
        output.print_json(made)
        return 0
    print(made["key"])
    print(f"id {made['id']}; nothing shows this key again, so keep it now", file=sys.stderr)
    return 0
