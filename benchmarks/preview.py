"""What an offline preview of each environment costs: `python -m benchmarks.preview`. Limit: 5 s for `prod`.

CPU time of a whole process, best of three, as a multiple of what a program costs that only imports Pulumi and its
Kubernetes SDK.
"""

import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.table import print_table
from cli.graph.project import environments

ROOT = Path(__file__).parents[1]
RUNS = 3


def cpu_s(command: Sequence[str]) -> float:
    """Return the CPU seconds of one run of `python <command>`, output thrown away."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure and print."""
    commands = {"imports": ["-c", "import pulumi, pulumi_kubernetes"]}
    for name in environments(ROOT):
        commands[name] = ["-m", "cli.main", "preview", "--env", name]
    best = {name: min(cpu_s(command) for _ in range(RUNS)) for name, command in commands.items()}
    rows = [[name, f"{value:.2f}", f"{value / best['imports']:.1f}"] for name, value in best.items()]
    print_table("Offline preview, CPU seconds", ["environment", "s", "times imports"], rows)


if __name__ == "__main__":
    main()
