"""`penstock developers`: who there is."""

from typing import Any

from cli.manage.people import add

EXAMPLES = """\
  penstock developers list acme
  penstock developers show acme/ada@example.com
"""


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    add(subparsers, "developers", "developer", "show developers", ("team", "role", "limits", "active"), EXAMPLES)
