"""What `penstock developers` and `penstock teams` have in common: lists by organization."""

import argparse
from collections.abc import Sequence
from typing import Any

from cli.manage.common import command, group, scope


def add(subparsers: Any, kind: str, one: str, help_: str, columns: Sequence[str], examples: str) -> None:
    """Add the command for a kind of documents, which shows `columns` of each."""
    commands = group(subparsers, kind, help_, examples)
    listing = command(commands, "list", _list, f"list {kind}")
    listing.add_argument("organization", nargs="?", metavar="ORGANIZATION", help="of one organization only")
    listing.set_defaults(columns=columns)
    show = command(commands, "show", _show, f"show one {one}")
    show.add_argument("name", type=scope, metavar="ORGANIZATION/NAME")
    for parser in (listing, show):
        parser.set_defaults(kind=kind)


def _list(args: argparse.Namespace) -> int:
    from cli.manage import output
    from cli.manage.client import connect, quoted

    path = f"{quoted('organizations', args.organization)}/{args.kind}" if args.organization else args.kind
    items = list(connect(args).items(path))
    if args.json:
        output.print_json(items)
        return 0
    header = ["NAME", *(column.upper() for column in args.columns), "DECLARED"]
    rows = [
        [
            f"{item['organization']}/{item['name']}",
            *(_text(item[column]) for column in args.columns),
            _text(item["metadata"]["declared"]),
        ]
        for item in items
    ]
    print(output.table(header, rows))
    return 0


def _show(args: argparse.Namespace) -> int:
    from cli.manage import output
    from cli.manage.client import connect, quoted

    organization, name = args.name
    output.print_json(connect(args).get(quoted("organizations", organization, args.kind, name)))
    return 0


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
