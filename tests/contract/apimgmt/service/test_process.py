"""API management as it runs: its own process, spoken to over gRPC; its store is read from outside."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import pytest
import yaml

from services.apimgmt import keys
from services.apimgmt.settings import SqliteStore
from services.apimgmt.store.sqlite import SqliteStore as Sqlite
from services.extproc.proto import ext_proc_pb2 as pb
from services.extproc.server import SERVICE
from tests.support.envoy import free_port
from tests.support.extproc import DUPLEX, body, headers

REPOSITORY = Path(__file__).parents[4]
PEPPER = "p" * 40
LEASE_S = 5
CONFIG: dict[str, Any] = {
    "organizations": [{"name": "acme"}],
    "teams": [{"name": "red", "organization": "acme"}],
    "developers": [{"name": "ada", "organization": "acme", "team": "red"}],
    "limits": [{"name": "per-day", "scope": "key", "kind": "requests", "amount": 2, "window": "day"}],
    "products": [{"name": "std", "models": ["*"], "limits": ["per-day"]}],
    "apps": [
        {"name": "app", "organization": "acme", "team": "red", "developer": "ada", "products": [{"product": "std"}]}
    ],
    "leaseSeconds": LEASE_S,
}
CHAT = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9}).encode()
ANSWER = b'{"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}'


class Running:
    """A process, the file that it reads, and the store that it writes."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "config.yaml"
        self.store = Sqlite(SqliteStore(kind="sqlite", path=str(folder / "store.db")))
        self.key = ""
        self.processes: list[subprocess.Popen[bytes]] = []

    def write(self, **changes: Any) -> None:
        store = {"kind": "sqlite", "path": str(self.folder / "store.db")}
        temporary = self.file.with_suffix(".new")
        temporary.write_text(yaml.safe_dump({"store": store, **CONFIG, **changes}))
        temporary.replace(self.file)

    async def start(self) -> None:
        process = self._launch()
        self.processes.append(process)
        await self.until(lambda: self._healthy(process))

    def _launch(self) -> subprocess.Popen[bytes]:
        self.grpc_port, self.metrics_port = free_port(), free_port()
        ports = [f"--grpc-port={self.grpc_port}", f"--metrics-port={self.metrics_port}"]
        ports += ["--health-port=0", "--admin-port=0"]
        command = [sys.executable, "-m", "services.apimgmt", f"--config-file={self.file}", "--tls-mode=off", *ports]
        environ = {**os.environ, "PENSTOCK_KEY_PEPPER": PEPPER}
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(command, cwd=REPOSITORY, env=environ, stderr=log)

    def metrics(self) -> str:
        return httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics", trust_env=False).text

    def _healthy(self, process: subprocess.Popen[bytes]) -> bool:
        assert process.poll() is None, (self.folder / "log").read_text()
        try:
            return httpx.get(f"http://127.0.0.1:{self.metrics_port}/healthz", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    async def until(self, done: Callable[[], object], limit_s: float = 30) -> None:
        deadline = time.monotonic() + limit_s
        while not done():
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            await asyncio.sleep(0.05)

    def end(self, number: int) -> int:
        self.processes[-1].send_signal(number)
        return self.processes[-1].wait(20)

    async def records(self) -> list[dict[str, Any]]:
        return [json.loads(record) for record in (await self.store.ledger("", 100))[1]]

    async def ask(self, *, finish: bool = True) -> tuple[int, Any]:
        """Do one exchange; return the status that the client sees, and the stream if it is left open."""
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.grpc_port}")
        call = channel.stream_stream(
            f"/{SERVICE}/Process",
            request_serializer=pb.ProcessingRequest.SerializeToString,
            response_deserializer=pb.ProcessingResponse.FromString,
        )()
        fields = {
            ":method": "POST",
            ":path": "/v1/chat/completions",
            "x-gateway-model-name": "m",
            "authorization": f"Bearer {self.key}",
            "content-type": "application/json",
        }
        await call.write(headers("request", fields, modes=(DUPLEX, DUPLEX)))
        await call.write(body("request", CHAT, last=True))
        answer = await call.read()
        if answer.HasField("immediate_response"):
            await channel.close()
            return answer.immediate_response.status.code, None
        await call.read()  # the body
        if not finish:
            return 0, channel
        await call.write(headers("response", {":status": "200", "content-type": "application/json"}))
        await call.write(body("response", ANSWER, last=True))
        await call.read()
        await call.read()
        await channel.close()
        return 200, None


@contextlib.asynccontextmanager
async def serving(folder: Path, **config: Any) -> AsyncIterator[Running]:
    """A process with a key, and `config` on top of the usual one."""
    made = Running(folder)
    made.write(**config)
    await made.store.open()
    made.key, record = keys.issue(PEPPER.encode(), organization="acme", developer="ada", app="app", now=time.time())
    await keys.save_new(made.store, record, actor="test", now=time.time())
    try:
        await made.start()
        yield made
    finally:
        for process in made.processes:
            process.kill()
            process.wait()
        await made.store.close()


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with serving(tmp_path) as made:
        yield made


async def test_it_serves_refuses_and_writes_the_ledger(running: Running) -> None:
    assert [(await running.ask())[0] for _ in range(3)] == [200, 200, 429]
    metrics = running.metrics()
    assert 'penstock_apimgmt_requests_total{code="",organization="acme",outcome="ok"} 2.0' in metrics
    assert running.end(signal.SIGTERM) == 0
    records = await running.records()
    assert [(r["outcome"], r["promptTokens"], r["status"]) for r in records] == [
        ("ok", 3, 200),
        ("ok", 3, 200),
        ("refused", 0, 429),
    ]


async def test_killed_in_mid_request_it_leaves_a_lost_record_and_nothing_held(running: Running) -> None:
    _, channel = await running.ask(finish=False)
    assert running.end(signal.SIGKILL) == -signal.SIGKILL
    await channel.close()
    assert await running.records() == []
    await running.start()
    deadline = time.monotonic() + 4 * LEASE_S
    while not (found := await running.records()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    assert [(r["outcome"], r["estimated"]) for r in found] == [("lost", True)]
    assert [(await running.ask())[0] for _ in range(2)] == [200, 429]  # the lost one counts


async def test_a_changed_file_takes_effect_and_a_wrong_one_does_not(running: Running) -> None:
    assert [(await running.ask())[0] for _ in range(3)] == [200, 200, 429]
    running.write(limits=[{**CONFIG["limits"][0], "amount": 3}])
    await running.until(lambda: "reloaded" in (running.folder / "log").read_text())
    deadline = time.monotonic() + 10
    while (await running.ask())[0] == 429:
        assert time.monotonic() < deadline
    assert (await running.ask())[0] == 429
    running.write(limits=[], products=[{**CONFIG["products"][0], "policies": [{"policy": "no-such"}]}])
    await running.until(lambda: "config refused" in (running.folder / "log").read_text())
    assert "products[0].policies[0].policy" in (running.folder / "log").read_text()
    assert (await running.ask())[0] == 429


@pytest.mark.parametrize(
    ("changes", "environ", "expected"),
    [
        ({"policies": [{"policy": "access", "mode": "off"}]}, {}, ["policies[0]"]),
        ({"policies": [{"policy": "limit"}, {"policy": "prompt-limit"}]}, {}, ["policies[0].policy", "maxTokens"]),
        ({"products": [{"name": "std", "models": ["*"], "limits": ["gone"]}]}, {}, ["gone"]),
        ({}, {"PENSTOCK_KEY_PEPPER": "short"}, ["PENSTOCK_KEY_PEPPER"]),
        ({}, {"PENSTOCK_ADMIN_TOKEN": "short"}, ["PENSTOCK_ADMIN_TOKEN"]),
        ({"recording": {"path": "/proc/none/recording"}}, {}, ["recording.path"]),
        ({"store": {"kind": "sqlite", "path": "/proc/none/store.db"}}, {}, ["store"]),
    ],
)
def test_what_cannot_be_served_is_told(
    tmp_path: Path, changes: dict[str, Any], environ: dict[str, str], expected: list[str]
) -> None:
    made = Running(tmp_path)
    made.write(**changes)
    command = [sys.executable, "-m", "services.apimgmt", f"--config-file={made.file}", "--tls-mode=off"]
    ports = [f"--{name}-port=0" for name in ("grpc", "health", "metrics", "admin")]
    given = {**os.environ, "PENSTOCK_KEY_PEPPER": PEPPER, **environ}
    done = subprocess.run([*command, *ports], cwd=REPOSITORY, env=given, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert all(text in done.stderr for text in expected), done.stderr
    assert "Traceback" not in done.stderr
    assert "short" not in done.stderr.replace("shorten", "")


def test_guardrails_that_this_version_lacks_are_refused(tmp_path: Path) -> None:
    made = Running(tmp_path)
    made.write()
    command = [sys.executable, "-m", "services.apimgmt", f"--config-file={made.file}", "--guardrails-file=g.yaml"]
    given = {**os.environ, "PENSTOCK_KEY_PEPPER": PEPPER}
    done = subprocess.run(command, cwd=REPOSITORY, env=given, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "--guardrails-file" in done.stderr
