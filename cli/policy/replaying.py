"""Runs `penstock policy replay`: reads, plays, compares."""

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path

from cli.errors import UsageError
from cli.policy.comparison import Comparison, recorded_decision
from cli.policy.output import as_json, as_text
from services.apimgmt.recording import Header, Recorded, RecordingError, read
from services.apimgmt.replay import Run, replay
from services.apimgmt.settings import Settings
from services.apimgmt.store.api import StoreError
from services.extproc.config import ConfigError, load_config

MAX_REQUESTS = 1_000_000
"""Most requests that are read: they are sorted by time, so all of them are in memory."""


def run(args: argparse.Namespace) -> int:
    """Play, print, and return the exit status. Raises UsageError."""
    try:
        header, requests = _requests(args.recording)
        new = load_config(args.config_file, Settings)
        old = load_config(args.against, Settings) if args.against is not None else None
        after = _play(args, new, header, requests)
        before = _play(args, old, header, requests) if old is not None else None
    except (ConfigError, RecordingError, StoreError) as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        raise UsageError(f"{error.filename}: {error.strerror}; check the path and its permissions") from None
    decided = before.decisions if before is not None else [recorded_decision(request) for request in requests]
    left = {*after.not_evaluated, *(before.not_evaluated if before is not None else ())}
    comparison = Comparison(
        requests, decided, after.decisions, left, bodies=header.bodies, examples=max(args.examples, 0)
    )
    baseline = str(args.against) if args.against is not None else "the recording"
    print(as_json(comparison, header) if args.json else as_text(comparison, header, baseline, str(args.config_file)))
    return 1 if args.exit_code and comparison.changed else 0


def _requests(path: Path) -> tuple[Header, Sequence[Recorded]]:
    header, found = read(path)
    requests = []
    for request in found:
        requests.append(request)
        if len(requests) > MAX_REQUESTS:
            raise UsageError(f"{path}: more than {MAX_REQUESTS:,} requests; cut the file, and keep its first line")
    requests.sort(key=lambda request: request.time)
    return header, requests


def _play(args: argparse.Namespace, settings: Settings, header: Header, requests: Sequence[Recorded]) -> Run:
    documents = args.documents.read_text(encoding="utf-8").splitlines() if args.documents is not None else ()
    return asyncio.run(
        replay(settings, requests, bodies=header.bodies, call_external=args.call_external, documents=documents)
    )
