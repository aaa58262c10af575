"""`penstock import`: an export into a store that has no documents."""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from cli.errors import UsageError
from cli.manage.common import single

EXAMPLES = """\
  penstock import store.jsonl --config-file config.yaml    into the store that the config names; services stopped
  penstock import store.jsonl --url https://...            over an admin API whose config declares nothing
"""


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = single(subparsers, "import", _run, "import an export into an empty store", EXAMPLES)
    parser.add_argument("file", type=Path, metavar="FILE", help="what `penstock export` wrote")
    parser.add_argument("--config-file", type=Path, metavar="PATH", help="write into its store, without an admin API")


def _run(args: argparse.Namespace) -> int:
    if not args.file.is_file():
        raise UsageError(f"{args.file}: there is no such file")
    counts = _direct(args) if args.config_file else _remote(args)
    if args.json:
        print(json.dumps(counts))
    else:
        print("imported " + ", ".join(f"{number:,} {name}" for name, number in counts.items()))
    return 0


def _remote(args: argparse.Namespace) -> dict[str, int]:
    from cli.manage.client import connect

    with args.file.open("rb") as file:
        length = {"content-length": str(os.fstat(file.fileno()).st_size)}
        with connect(args).open("POST", "import", file, content_type="application/jsonl", headers=length) as answer:
            counts: dict[str, int] = json.load(answer)
            return counts


def _direct(args: argparse.Namespace) -> dict[str, int]:
    import asyncio
    from dataclasses import asdict

    from services.apimgmt.settings import Settings
    from services.apimgmt.store import open_store, portable
    from services.apimgmt.store.api import StoreError
    from services.extproc.config import ConfigError, load_config

    async def run() -> dict[str, int]:
        store = open_store(load_config(args.config_file, Settings).store, os.environ)
        await store.open()
        try:
            with args.file.open(encoding="utf-8") as lines:
                return asdict(await portable.import_(store, lines))
        finally:
            await store.close()

    try:
        return asyncio.run(run())
    except (ConfigError, StoreError, UnicodeDecodeError) as error:
        raise UsageError(*str(error).splitlines()) from None
