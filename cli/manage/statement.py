"""`penstock statement`: what a month costs."""

import argparse
import datetime
from typing import Any

from cli.manage.common import parse_by, single

EXAMPLES = """\
  penstock statement                        this month, by organization
  penstock statement --month 2026-10 --organization acme --by team,model
"""


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = single(subparsers, "statement", _run, "show what a month costs", EXAMPLES)
    parser.add_argument("--month", metavar="YYYY-MM", help="default: this one (UTC)")
    parser.add_argument("--organization", metavar="NAME", help="of one organization only")
    parser.add_argument("--by", action="append", default=[], metavar="NAMES", help="default: organization")


def _run(args: argparse.Namespace) -> int:
    from cli.manage import output
    from cli.manage.client import connect

    month = args.month or datetime.datetime.now(datetime.UTC).strftime("%Y-%m")
    by = parse_by(args.by) or ["organization"]
    found = connect(args).get("statement", month=month, organization=args.organization, by=by)
    if args.json:
        output.print_json(found)
        return 0
    header = [*map(str.upper, by), "REQUESTS", "PROMPT", "COMPLETION", "USE", "FREE", "AMOUNT", ""]
    most = max((line["amountMicros"] for line in found["lines"]), default=0)
    rows = [
        [
            *(line[name] for name in by),
            output.count(line["requests"]),
            output.count(line["promptTokens"]),
            output.count(line["completionTokens"]),
            output.money(line["costMicros"]),
            output.money(-line["creditMicros"]),
            output.money(line["amountMicros"]),
            output.bar(line["amountMicros"], most),
        ]
        for line in found["lines"]
    ]
    print(output.table(header, rows, range(len(by), len(by) + 6)))
    if found["fees"]:
        fees = [
            (fee["organization"], fee["app"], fee["plan"], output.money(fee["amountMicros"])) for fee in found["fees"]
        ]
        print("\n" + output.table(("ORGANIZATION", "APP", "PLAN", "MONTHLY FEE"), fees, (3,)))
    print(f"\n{found['month']}: {output.money(found['amountMicros'])} in all")
    return 0
