"""Which test worker gets which tests: a file stays whole, and so do files that name one `xdist_group`.

Fixtures of a file, a package or a session are then made by one worker, not by each of them; most of all the stacks.
pytest-xdist's own `loadgroup` cannot do that here: it writes groups into node ids by a private attribute that
pytest 9.2 no longer reads, and hands out single tests, whatever they are marked with
(https://github.com/pytest-dev/pytest-xdist/issues/1386).
"""

import functools
import re
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

_GROUP = re.compile(r"""^pytestmark = .*\bxdist_group\("([^"]+)"\)""", re.MULTILINE)
ORDERS = (("tests/dataplane", "tests/contract", "tests/graph"), ("tests/graph", "tests/contract"))
"""What the first worker and the others take first. Stacks wait a lot, so what computes runs beside them.

The rest are many small files, so that all workers end at about the same time.
"""


@functools.cache
def unit_of(path: Path) -> str:
    """Return the group that a test file's `pytestmark` names, else the file itself."""
    found = _GROUP.search(path.read_text(encoding="utf-8"))
    return f"@{found[1]}" if found else str(path)


class FilesAndGroups(LoadScopeScheduling):
    """Hands out files and groups of files, those that take long first."""

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(self.config.rootpath / nodeid.partition("::")[0])

    def _assign_work_unit(self, node: WorkerController) -> None:
        order = ORDERS[0 if node.gateway.id == "gw0" else 1]

        def place(unit: str) -> tuple[int, bool]:
            """Groups come after the other files of their folder: what they share ends as the folder is left."""
            path = next(iter(self.workqueue[unit]))
            ranks = [rank for rank, folder in enumerate(order) if path.startswith(f"{folder}/")]
            return (*ranks, len(order))[0], unit.startswith("@")

        self.workqueue.move_to_end(min(self.workqueue, key=place), last=False)
        super()._assign_work_unit(node)


def scheduler(config: pytest.Config, log: Producer) -> FilesAndGroups:
    """Return one for `pytest_xdist_make_scheduler`."""
    config.option.loadscopereorder = False  # the number of tests says little of their time
    return FilesAndGroups(config, log)
