"""LiteLLM's proxy for comparison: a key of its own, with request and token rates, checked in memory.

Its virtual keys need a database; its hook for custom authentication returns the same object (`UserAPIKeyAuth`) with the
same limits, and the same limiter enforces them. It is installed once into a virtual environment in the user's cache.
"""

import asyncio
import contextlib
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from benchmarks.upstream import free_port
from cli.local.health import get

VERSION = "1.105.2"
NAME = f"LiteLLM {VERSION}, 1 worker"

_KEY = "sk-bench-0123456789abcdef"
_MASTER = f"sk-{secrets.token_hex(32)}"
_START_S = 120.0
_AUTH = f'''
from litellm.proxy._types import UserAPIKeyAuth


async def check(request, api_key: str) -> UserAPIKeyAuth:
    if api_key != "{_KEY}":
        raise ValueError("no such key")
    return UserAPIKeyAuth(
        api_key=api_key, user_id="ada", team_id="research", rpm_limit=10**9, tpm_limit=10**12, max_parallel_requests=256
    )
'''
_CONFIG = """
model_list:
  - model_name: {model}
    litellm_params: {{model: openai/{model}, api_base: "http://127.0.0.1:{port}/v1", api_key: none}}
general_settings:
  custom_auth: bench_auth.check
litellm_settings:
  set_verbose: false
"""


def _home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "penstock" / "bench" / f"litellm-{VERSION}"


def install() -> Path:
    """Return the folder of the executables; install them if they are not there. Raises CalledProcessError."""
    home = _home()
    if not (home / "installed").exists():
        print(f"installing LiteLLM {VERSION} into {home}, once", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        subprocess.run([str(home / "bin" / "pip"), "install", "--quiet", f"litellm[proxy]=={VERSION}"], check=True)
        (home / "installed").touch()
    return home / "bin"


@contextlib.asynccontextmanager
async def running(model: str) -> AsyncIterator[tuple[int, int, str]]:
    """Run the proxy in front of `benchmarks.upstream`; yield its port, its process and a key."""
    executables, port, behind = install(), free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        (Path(folder) / "bench_auth.py").write_text(_AUTH)
        config = Path(folder) / "config.yaml"
        config.write_text(_CONFIG.format(model=model, port=behind))
        flags = ("--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1")
        environ = {**os.environ, "LITELLM_LOG": "ERROR", "LITELLM_TELEMETRY": "False", "LITELLM_MASTER_KEY": _MASTER}
        log = (Path(folder) / "log").open("wb")
        upstream = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.upstream", "--port", str(behind)
        )
        proxy = await asyncio.create_subprocess_exec(
            str(executables / "litellm"), *flags, cwd=folder, env=environ, stdout=log, stderr=log
        )
        try:
            await _ready(port, proxy, Path(folder) / "log")
            yield port, proxy.pid, _KEY
        finally:
            for process in (proxy, upstream):
                if process.returncode is None:
                    process.terminate()
                await process.wait()
            log.close()


async def _ready(port: int, process: asyncio.subprocess.Process, log: Path) -> None:
    for _ in range(int(_START_S * 10)):
        with contextlib.suppress(OSError):
            status, _ = await get(port, "/health/liveliness")
            if status == 200:
                return
        if process.returncode is not None:
            break
        await asyncio.sleep(0.1)
    raise RuntimeError(f"LiteLLM did not become ready:\n{_tail(log)}")


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]
