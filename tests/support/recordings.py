"""What the program declares for the environments of this repository, recorded once in a process.

    graph = recorded("prod", preview=True)

Recording `prod` takes seconds. Whoever wants to change a graph, or to record in a way of their own, records anew with
`cli.graph.program.record_environment`. Files that ask for most of the environments name the `xdist_group` "recordings",
so that one worker records them.
"""

import functools
from pathlib import Path

from cli.graph.model import Graph
from cli.graph.program import record_environment

ROOT = Path(__file__).parents[2]


@functools.cache
def recorded(environment: str, *, preview: bool = False) -> Graph:
    """Return the graph of `environment`, as after an update or as in a preview."""
    return record_environment(environment, preview=preview, root=ROOT)
