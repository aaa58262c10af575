"""`penstock products`: what there is, and what the stack's config would change."""

import argparse
from typing import Any

from cli.manage.common import command, group

EXAMPLES = """\
  penstock products list
  penstock products show chat
  penstock products diff          what the stack declares against what is stored
"""


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    commands = group(subparsers, "products", "show API products and what is declared", EXAMPLES)
    command(commands, "list", _list, "list products")
    command(commands, "show", _show, "show one product").add_argument("product", metavar="NAME")
    command(commands, "diff", _diff, "show what applying the stack's config would change; exit status 1 if anything")


def _list(args: argparse.Namespace) -> int:
    from cli.manage import output
    from cli.manage.client import connect

    items = list(connect(args).items("products"))
    if args.json:
        output.print_json(items)
        return 0
    header = ("NAME", "MODELS", "LIMITS", "PLAN", "APPROVAL", "PUBLIC", "DECLARED")
    rows = [
        (
            item["name"],
            ", ".join(item["models"]),
            ", ".join(item["limits"]),
            item["ratePlan"],
            item["approval"],
            "yes" if item["public"] else "no",
            "yes" if item["metadata"]["declared"] else "no",
        )
        for item in items
    ]
    print(output.table(header, rows))
    return 0


def _show(args: argparse.Namespace) -> int:
    from cli.manage import output
    from cli.manage.client import connect, quoted

    output.print_json(connect(args).get(quoted("products", args.product)))
    return 0


def _diff(args: argparse.Namespace) -> int:
    from cli.manage import output
    from cli.manage.client import connect

    found = connect(args).get("declared/diff")
    if args.json:
        output.print_json(found)
    else:
        print("\n".join(map(_line, found["items"])) or f"all {found['unchanged']} declared documents are applied")
    return 1 if found["items"] else 0


def _line(item: dict[str, Any]) -> str:
    sign = {"create": "+", "update": "~", "delete": "-"}[item["action"]]
    name = "/".join(part for part in (item["kind"], item["organization"], item["name"]) if part)
    note = f" ({item['note']})" if item["note"] else ""
    fields = [f"\n    {field['path']}: {field['before']} -> {field['after']}" for field in item["fields"]]
    return f"{sign} {name}{note}" + "".join(fields)
