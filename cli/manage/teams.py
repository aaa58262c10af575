"""`penstock teams`: which teams there are."""

from typing import Any

from cli.manage.people import add

EXAMPLES = """\
  penstock teams list
  penstock teams show acme/research
"""


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    add(subparsers, "teams", "team", "show teams", ("displayName", "limits"), EXAMPLES)
