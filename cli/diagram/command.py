"""`penstock diagram`: what an environment declares, as a picture."""

import argparse
import sys
from pathlib import Path

from cli.errors import UsageError

EXAMPLES = """\
examples:
  penstock diagram --env prod --output prod.svg   networks, gateway, pools and nodes of `prod`
  penstock diagram > local.svg                    the environment `local`
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand. Imports nothing heavy: that is left to `run`."""
    parser = subparsers.add_parser(
        "diagram",
        help="draw what an environment declares as SVG",
        description="Record what the program declares for an environment, offline, and draw networks, gateway, "
        "callouts, routes, pools and nodes as one SVG picture.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--env", default="local", metavar="E", help="environment, names Pulumi.E.yaml (default: local)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where to write it (default: standard output)")
    parser.add_argument(
        "--root", type=Path, metavar="DIR", help="the project's folder (default: found upward from here)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Draw; return the exit status."""
    from cli.diagram.layout import draw
    from cli.diagram.topology import topology
    from cli.graph.program import record_environment

    picture = draw(topology(record_environment(args.env, preview=False, root=args.root)))
    if args.output is None:
        sys.stdout.write(picture)
        return 0
    try:
        args.output.write_text(picture, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--output: cannot write {args.output}: {error.strerror}. Name another file") from None
    return 0
