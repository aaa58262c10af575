"""`penstock apps`: apps and their subscriptions."""

import argparse
from typing import Any

from cli.manage.common import command, group, scope

EXAMPLES = """\
  penstock apps list
  penstock apps create acme/chat --team research --developer ada@example.com --product chat
  penstock apps subscribe acme/chat batch
  penstock apps pending                       subscriptions that wait for approval
  penstock apps approve acme/chat batch
  penstock apps revoke acme/chat batch
"""


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    commands = group(subparsers, "apps", "create apps, and give them products", EXAMPLES)
    listing = command(commands, "list", _list, "list apps")
    listing.add_argument("organization", nargs="?", metavar="ORGANIZATION", help="of one organization only")
    command(commands, "show", _show, "show one app").add_argument("app", type=scope, metavar="ORGANIZATION/APP")
    create = command(commands, "create", _create, "create an app")
    create.add_argument("app", type=scope, metavar="ORGANIZATION/APP")
    create.add_argument("--team", required=True, metavar="TEAM")
    create.add_argument("--developer", required=True, metavar="NAME", help="who owns it")
    create.add_argument("--product", action="append", default=[], metavar="NAME", help="may be repeated, in order")
    create.add_argument("--label", default="", metavar="TEXT", help="what people call it")
    command(commands, "pending", _pending, "list subscriptions that wait for approval")
    for name, help_ in (
        ("subscribe", "ask for a product"),
        ("approve", "approve a subscription"),
        ("revoke", "revoke a subscription"),
    ):
        parser = command(commands, name, _subscription, help_)
        parser.add_argument("app", type=scope, metavar="ORGANIZATION/APP")
        parser.add_argument("product", metavar="PRODUCT")
        parser.set_defaults(step=name)


def _list(args: argparse.Namespace) -> int:
    from cli.manage import output
    from cli.manage.client import connect, quoted

    path = f"{quoted('organizations', args.organization)}/apps" if args.organization else "apps"
    items = list(connect(args).items(path))
    if args.json:
        output.print_json(items)
        return 0
    rows = [
        (
            f"{item['organization']}/{item['name']}",
            item["team"],
            item["developer"],
            _subscriptions(item),
            "yes" if item["active"] else "no",
        )
        for item in items
    ]
    print(output.table(("APP", "TEAM", "DEVELOPER", "PRODUCTS", "ACTIVE"), rows))
    return 0


def _show(args: argparse.Namespace) -> int:
    from cli.manage import output
    from cli.manage.client import connect

    output.print_json(connect(args).get(_path(args)))
    return 0


def _create(args: argparse.Namespace) -> int:
    import json

    from cli.manage.client import connect

    body = {
        "team": args.team,
        "developer": args.developer,
        "displayName": args.label,
        "products": [{"product": name} for name in args.product],
    }
    with connect(args).open("PUT", _path(args), json.dumps(body).encode()) as answer:
        return _told(args, json.load(answer))


def _pending(args: argparse.Namespace) -> int:
    from cli.manage import output
    from cli.manage.client import connect

    items = connect(args).get("subscriptions", status="pending")["items"]
    if args.json:
        output.print_json(items)
        return 0
    rows = [
        (f"{item['organization']}/{item['app']}", item["product"], item["team"], item["developer"]) for item in items
    ]
    print(output.table(("APP", "PRODUCT", "TEAM", "DEVELOPER"), rows) if rows else "no subscription waits")
    return 0


def _subscription(args: argparse.Namespace) -> int:
    import json

    from cli.manage.client import connect, quoted

    path = f"{_path(args)}/subscriptions/{quoted(args.product)}"
    method, end = ("PUT", "") if args.step == "subscribe" else ("POST", f"/{args.step}")
    with connect(args).open(method, path + end) as answer:
        return _told(args, json.load(answer))


def _told(args: argparse.Namespace, app: dict[str, Any]) -> int:
    from cli.manage import output

    if args.json:
        output.print_json(app)
    else:
        print(f"{app['organization']}/{app['name']}: {_subscriptions(app) or 'no products'}")
    return 0


def _subscriptions(app: dict[str, Any]) -> str:
    return ", ".join(s["product"] + ("" if s["status"] == "approved" else f" ({s['status']})") for s in app["products"])


def _path(args: argparse.Namespace) -> str:
    from cli.manage.client import quoted

    organization, name = args.app
    return quoted("organizations", organization, "apps", name)
