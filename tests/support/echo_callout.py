"""A callout process for tests: holds the body, sets a header; `--slow S` waits S seconds for each request."""

import argparse
import asyncio
import sys

from services.extproc.api import Answer, BodyMode, Exchange, Filter, FilterStream
from services.extproc.serve import Service, main


class Echo(Filter):
    name = "echo"
    request_body = BodyMode.WHOLE

    def __init__(self, slow: float) -> None:
        self.slow = slow

    def open(self, exchange: Exchange) -> FilterStream:
        return _Stream(exchange, self.slow)


class _Stream(FilterStream):
    def __init__(self, exchange: Exchange, slow: float) -> None:
        self.exchange, self.slow = exchange, slow

    def on_request_body(self) -> Answer:
        self.exchange.request_changes.set["x-echo"] = str(len(self.exchange.request_body))
        return asyncio.sleep(self.slow) if self.slow else None


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--slow", type=float, default=0.0)


if __name__ == "__main__":
    sys.exit(main("echo", lambda flags: Service([Echo(flags.slow)]), _arguments))
