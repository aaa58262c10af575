"""`penstock usage`: requests, tokens and money, as a table with bars."""

import argparse
from typing import Any

from cli.manage.common import moment, parse_by, single

FILTERS = ("organization", "team", "user", "app", "key", "product", "model", "agent", "outcome")
"""What can be filtered and grouped by (`store.api.DIMENSIONS`; a test holds them together)."""

EXAMPLES = """\
  penstock usage                                    this month, by day
  penstock usage --by team --bucket all --since 30d
  penstock usage --by model,user --team research --since 2026-11-01 --until 2026-11-15
  penstock usage --by key --csv > usage.csv
"""


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = single(subparsers, "usage", _run, "show requests, tokens and costs", EXAMPLES)
    parser.add_argument("--by", action="append", default=[], metavar="NAMES", help=f"some of {', '.join(FILTERS)}")
    parser.add_argument("--since", metavar="TIME", help="7d, 12h, a date, or a time (default: the 1st of the month)")
    parser.add_argument("--until", metavar="TIME", help="likewise (default: now)")
    parser.add_argument("--bucket", choices=("hour", "day", "month", "all"), default="day", help="default: day")
    parser.add_argument("--csv", action="store_true", help="print CSV instead of a table")
    for name in FILTERS:
        parser.add_argument(f"--{name}", metavar="NAME", help=f"only this {name}")


def _run(args: argparse.Namespace) -> int:
    from cli.manage import output
    from cli.manage.client import connect

    by = parse_by(args.by)
    asked = {name: getattr(args, name) for name in FILTERS}
    asked |= {"by": by, "since": moment(args.since), "until": moment(args.until), "bucket": args.bucket}
    client = connect(args)
    if args.csv:
        print(client.text("usage", format="csv", **asked), end="")
        return 0
    found = client.get("usage", **asked)
    if args.json:
        output.print_json(found)
        return 0
    print(f"{output.time(found['since'])} to {output.time(found['until'])} UTC\n")
    print(output.usage(found["items"], by, args.bucket) if found["items"] else "nothing was used")
    return 0
