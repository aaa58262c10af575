"""Real simulator processes on free ports of 127.0.0.1."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[3]
# As the recorded vLLM was started.
RECORDED = """/models/tiny-llama --served-model-name tiny --dtype float32 --max-model-len 2048 --max-num-seqs 4
--max-num-batched-tokens 2048 --block-size 32 --num-gpu-blocks-override 128 --enforce-eager --enable-prefix-caching
--enable-lora --max-loras 2 --max-lora-rank 8 --lora-modules lora-a=/models/lora-a lora-b=/models/lora-b""".split()


@dataclass
class Simulator:
    """A running process."""

    process: subprocess.Popen[str]
    url: str = ""
    log: list[str] = field(default_factory=list)
    reader: threading.Thread | None = None

    def state(self) -> dict[str, object]:
        """Return GET /sim/state."""
        result: dict[str, object] = httpx.get(f"{self.url}/sim/state").json()
        return result

    def set_faults(self, *faults: str) -> None:
        """Replace the faults."""
        httpx.post(f"{self.url}/sim/faults", json={"faults": faults}).raise_for_status()

    def read_log(self) -> None:
        """Read stderr until the address is known, then go on in the background, so that the pipe never fills."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            if "serving on " in line:
                self.url = json.loads(line)["message"].partition("serving on ")[2]
                self.reader = threading.Thread(target=self.log.extend, args=(self.process.stderr,), daemon=True)
                self.reader.start()
                return
        raise AssertionError(f"no simulator: {self.log}")

    def end(self) -> None:
        """Kill the process and close what belongs to it."""
        self.process.kill()
        self.process.wait(10)
        if self.reader is not None:
            self.reader.join(10)
        assert self.process.stderr is not None
        self.process.stderr.close()


Start = Callable[..., Simulator]


def run_simulators() -> Iterator[Start]:
    """Yield a function that starts a simulator; all are ended at the end."""
    started: list[Simulator] = []

    def start(*arguments: str, port: str = "0", **environment: str) -> Simulator:
        command = [sys.executable, "-m", "services.modelserver", *arguments, "--port", port]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **environment},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        simulator = Simulator(process)
        started.append(simulator)
        simulator.read_log()
        return simulator

    yield start
    for simulator in started:
        simulator.end()


@pytest.fixture
def start() -> Iterator[Start]:
    """Start simulators for one test."""
    yield from run_simulators()


@pytest.fixture(scope="module")
def recorded() -> Iterator[Simulator]:
    """A simulator started like the recorded vLLM, instant, shared by a module."""
    for start in run_simulators():
        yield start(*RECORDED, "--sim-time-scale", "0", "--sim-check-lora-paths", VLLM_ALLOW_RUNTIME_LORA_UPDATING="1")
