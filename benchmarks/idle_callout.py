"""A callout that takes what API management takes and does nothing with it: the baseline of `benchmarks.management`."""

import argparse
import sys
from typing import ClassVar

from services.extproc.api import BodyMode, Exchange, Filter, FilterStream
from services.extproc.serve import Service, main


class Idle(Filter):
    """Takes the request's body whole and the answer's in chunks."""

    name: ClassVar[str] = "idle"
    request_body: ClassVar[BodyMode] = BodyMode.WHOLE
    response_body: ClassVar[BodyMode] = BodyMode.CHUNKS

    def open(self, exchange: Exchange) -> FilterStream:
        """Return a stream that lets everything pass."""
        return FilterStream()


def _build(flags: argparse.Namespace) -> Service:
    return Service([Idle()])


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--admin-port", type=int)


if __name__ == "__main__":
    sys.exit(main("idle", _build, _arguments))
