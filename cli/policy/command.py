"""`penstock policy`: work on policies of API management without a running one."""

import argparse
from pathlib import Path
from typing import Any

EXAMPLES = """\
examples:
  penstock policy replay --recording recording.jsonl --config-file new.yaml
  penstock policy replay --recording recording.jsonl --config-file new.yaml --against old.yaml --json

exit status: 0, also where decisions differ; 1 if they do and --exit-code is given; 2 for what cannot be read
"""


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser("policy", help="replay recorded requests against a changed configuration")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    replay = actions.add_parser(
        "replay",
        help="show what a changed configuration would have done with recorded requests",
        description="Runs recorded requests through the policies and limits of a configuration, at the times at which "
        "they came, and shows what would differ. Nothing is sent to models, and no store is touched.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    replay.add_argument("--recording", type=Path, required=True, metavar="FILE", help="the file of `recording.path`")
    replay.add_argument(
        "--config-file", type=Path, required=True, metavar="FILE", help="the configuration of API management to try"
    )
    replay.add_argument(
        "--against",
        type=Path,
        metavar="FILE",
        help="compare with what this configuration does, instead of with what was recorded",
    )
    replay.add_argument(
        "--documents",
        type=Path,
        metavar="FILE",
        help="an export of the store (`penstock export`), for apps and products that are not in the configuration",
    )
    replay.add_argument(
        "--call-external", action="store_true", help="ask external services, which then see requests of the past"
    )
    replay.add_argument(
        "--examples", type=int, default=3, metavar="N", help="requests shown per difference (default 3)"
    )
    replay.add_argument("--exit-code", action="store_true", help="exit with status 1 if decisions differ")
    replay.add_argument("--json", action="store_true", help="print JSON")
    replay.set_defaults(run=_replay)


def _replay(args: argparse.Namespace) -> int:
    from cli.policy.replaying import run

    return run(args)
