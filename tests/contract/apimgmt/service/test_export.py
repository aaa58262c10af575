"""The export as a part of the running process: started, moved to another target, stopped, refused."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.apimgmt.service.test_process import PEPPER, REPOSITORY, Running, serving
from tests.unit.apimgmt.export.support import files, union


def ledger(folder: Path) -> dict[str, Any]:
    return {"retentionDays": 1, "export": {"url": f"file://{folder}", "intervalSeconds": 1}}


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with serving(tmp_path, ledger=ledger(tmp_path / "first")) as made:
        yield made


async def test_records_are_exported_wherever_the_file_says(running: Running, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert (await running.ask())[0] == 200
    await running.until(lambda: len(union(files(first))) == 1)
    running.write(ledger=ledger(second))
    await running.until(lambda: "reloaded" in (running.folder / "log").read_text())
    assert [(await running.ask())[0] for _ in range(2)] == [200, 429]
    await running.until(lambda: len(union(files(first))) + len(union(files(second))) == 3)
    assert files(second)
    assert union(files(first)) + union(files(second)) == await running.records()
    assert "penstock_apimgmt_export_records_total 3.0" in running.metrics()
    assert running.end(signal.SIGTERM) == 0


def test_a_target_that_cannot_be_is_refused(tmp_path: Path) -> None:
    made = Running(tmp_path)
    made.write(ledger={"export": {"url": "s3://me:hidden@bucket/a", "endpoint": "bucket"}})
    command = [sys.executable, "-m", "services.apimgmt", f"--config-file={made.file}", "--tls-mode=off"]
    ports = [f"--{name}-port=0" for name in ("grpc", "health", "metrics", "admin")]
    given = {**os.environ, "PENSTOCK_KEY_PEPPER": PEPPER}
    done = subprocess.run([*command, *ports], cwd=REPOSITORY, env=given, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert "ledger.export.url" in done.stderr
    assert "ledger.export.endpoint" in done.stderr
    assert "hidden" not in done.stderr
