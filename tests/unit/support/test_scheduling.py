"""Tests that share a stack run on one worker, which pytest-xdist tells nobody when it is not so."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.support.scheduling import scheduler, unit_of

ROOT = Path(__file__).parents[3]


class Worker:
    """Keeps what it is given."""

    def __init__(self, name: str) -> None:
        self.gateway = SimpleNamespace(id=name)
        self.given: list[int] = []
        self.done = 0
        self.shutting_down = False

    def send_runtest_some(self, indices: list[int]) -> None:
        self.given += indices

    def shutdown(self) -> None:
        self.shutting_down = True


def run(collected: list[str], workers: int = 2) -> dict[str, list[str]]:
    """Return which tests each worker ran, in order."""
    option = SimpleNamespace(loadscopereorder=True)
    config: Any = SimpleNamespace(rootpath=ROOT, option=option, getvalue=lambda name: ["popen"] * workers)
    made = scheduler(config, log=SimpleNamespace(loadscopesched=lambda *_: None))
    all_: list[Any] = [Worker(f"gw{number}") for number in range(workers)]
    for worker in all_:
        made.add_node(worker)
        made.add_node_collection(worker, collected)
    made.schedule()
    while busy := [worker for worker in all_ if worker.done < len(worker.given)]:
        for worker in busy:
            made.mark_test_complete(worker, worker.given[worker.done])
            worker.done += 1
    assert made.tests_finished
    return {worker.gateway.id: [collected[index] for index in worker.given] for worker in all_}


def test_files_and_groups_stay_whole_and_every_test_runs_once() -> None:
    files = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py"))
    collected = [f"{file}::test_{number}[a@b]" for file in files for number in range(3)]
    ran = run(collected)  # as many tests of each file
    assert sorted([*ran["gw0"], *ran["gw1"]]) == sorted(collected)
    of_unit: dict[str, set[str]] = {}
    for worker, tests in ran.items():
        for test in tests:
            of_unit.setdefault(unit_of(ROOT / test.partition("::")[0]), set()).add(worker)
    assert {unit: len(workers) for unit, workers in of_unit.items() if len(workers) > 1} == {}
    assert min(map(len, ran.values())) > len(collected) / 4


def test_stacks_and_graphs_come_first_on_different_workers_and_what_shares_a_stack_last_of_its_folder() -> None:
    folder, stack = "tests/dataplane", ("openai_client", "refusals", "routing")
    collected = [f"{folder}/test_{name}.py::test_x" for name in ("bodies", "callouts", *stack, "secrecy")]
    collected = ["tests/contract/picker/test_process.py::test_x", *collected, "tests/graph/test_parts.py::test_x"]
    ran = run([*collected, "tests/unit/kube/test_collection.py::test_x"], workers=1)["gw0"]
    names = [test.partition("::")[0].rpartition("test_")[2].removesuffix(".py") for test in ran]
    assert names == ["callouts", "bodies", "secrecy", *stack, "process", "parts", "collection"]
    first = run(collected)
    assert [first[worker][0].split("/")[1] for worker in ("gw0", "gw1")] == ["dataplane", "graph"]


def test_no_mark_is_overlooked() -> None:
    """One that stands elsewhere than in `pytestmark` would not be found, and nothing would tell."""
    for path in set((ROOT / "tests").rglob("test_*.py")) - {Path(__file__)}:
        assert unit_of(path).startswith("@") == ("xdist_group" in path.read_text(encoding="utf-8")), path
