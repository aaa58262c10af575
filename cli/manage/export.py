"""`penstock export`: everything that the store holds but counters, as JSON lines."""

import argparse
import os
import shutil
import sys
from typing import Any

from cli.errors import UsageError
from cli.manage.common import single

FILE_MODE = 0o600

EXAMPLES = """\
  penstock export store.jsonl
  penstock export --env local - | wc -l
"""


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = single(subparsers, "export", _run, "export the store as JSON lines", EXAMPLES)
    parser.add_argument("file", metavar="FILE", help="a new file that only you can read; `-` for standard output")


def _run(args: argparse.Namespace) -> int:
    from cli.manage.client import connect

    client = connect(args)
    if args.file == "-":
        with client.open("GET", "export") as answer:
            shutil.copyfileobj(answer, sys.stdout.buffer)
        return 0
    try:
        descriptor = os.open(args.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
    except OSError as error:
        raise UsageError(f"{args.file}: {error.strerror}; name a file that is not there yet") from None
    try:
        with os.fdopen(descriptor, "wb") as file, client.open("GET", "export") as answer:
            shutil.copyfileobj(answer, file)
    except BaseException:
        os.unlink(args.file)
        raise
    print(f"exported {os.path.getsize(args.file):,} bytes to {args.file}")
    return 0
