"""A real Valkey or Redis server on 127.0.0.1: alone or as a cluster of one node, with TLS where a test asks for it."""

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from services.apimgmt.settings import ValkeyStore as Settings
from services.apimgmt.store.valkey import ValkeyStore
from services.extproc.tls import self_signed
from tests.support.envoy import free_port

PASSWORD = "valkey-test-password"
"""Of servers that are started without another one."""

START_S = 15.0


class NoServer(Exception):
    """No server program is installed."""


def program() -> str:
    """Return the path of `valkey-server` or `redis-server`. Raises NoServer."""
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise NoServer(
            "neither valkey-server nor redis-server is installed; install valkey (or redis-server) for this test"
        )
    return found


class Server:
    """One server process. Its data outlives `kill` and `stop`, so it can be started again."""

    def __init__(self, folder: Path, *, password: str = PASSWORD, cluster: bool = False, tls: bool = False) -> None:
        """`folder` has its data and certificates. Each write is on disk before it is answered."""
        self.folder, self.password, self.cluster, self.tls = folder, password, cluster, tls
        folder.mkdir(parents=True, exist_ok=True)
        self.port, self.bus_port = free_port(), free_port()
        self.ca_file = folder / "ca.pem"
        if tls:
            key, certificate = self_signed("valkey", "127.0.0.1")
            (folder / "key.pem").write_bytes(key)
            (folder / "key.pem").chmod(0o600)
            self.ca_file.write_bytes(certificate)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Server":
        """Start, and wait until it answers. On a port that was taken meanwhile: on another one, the first time."""
        for _ in range(3):
            self._process = subprocess.Popen(self._arguments(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if self._answers():
                break
            self.kill()
            if not (self.folder / "appendonlydir").exists():
                self.port = free_port()
        else:
            raise RuntimeError(f"{program()} did not start: {(self.folder / 'log').read_text()[-2000:]}")
        if self.cluster:
            self._take_slots()
        return self

    def _arguments(self) -> list[str]:
        port = ["--port", "0", "--tls-port", str(self.port)] if self.tls else ["--port", str(self.port)]
        more = [f"--requirepass {self.password}"] if self.password else []
        if self.tls:
            more += [f"--tls-cert-file {self.ca_file}", f"--tls-key-file {self.folder / 'key.pem'}"]
            more += [f"--tls-ca-cert-file {self.ca_file}", "--tls-auth-clients no"]
        if self.cluster:
            more += ["--cluster-enabled yes", f"--cluster-port {self.bus_port}", "--cluster-require-full-coverage no"]
            more.append("--cluster-node-timeout 2000")
        files = ["--dir", str(self.folder), "--logfile", str(self.folder / "log")]
        words = [word for option in more for word in option.split(" ", 1)]
        durable = ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        return [program(), "--bind", "127.0.0.1", *port, *files, *durable, "--databases", "1", *words]

    def _answers(self) -> bool:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._process is not None and self._process.poll() is None:
            with contextlib.suppress(OSError):
                if self.tls:
                    socket.create_connection(("127.0.0.1", self.port), 1).close()
                    return True
                if self.command("PING").startswith(b"+PONG"):
                    return True
            time.sleep(0.02)
        return False

    def _take_slots(self) -> None:
        """Take all slots, the first time."""
        assert not self.tls, "clusters are set up without TLS here"
        if b"cluster_slots_assigned:0\r" in self.command("CLUSTER", "INFO"):
            self.command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        deadline = time.monotonic() + START_S
        while b"cluster_state:ok" not in self.command("CLUSTER", "INFO"):
            assert time.monotonic() < deadline, "the cluster does not come up"
            time.sleep(0.02)

    def command(self, *args: str) -> bytes:
        """Send one command over a connection of its own (without TLS), and return the first piece of the raw reply."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            commands = [("AUTH", self.password), args] if self.password else [args]
            reply = b""
            for each in commands:
                text = f"*{len(each)}\r\n" + "".join(f"${len(part.encode())}\r\n{part}\r\n" for part in each)
                connection.sendall(text.encode())
                reply = connection.recv(1 << 16)
            return reply

    def stop(self) -> None:
        """End it in order."""
        self._end(kill=False)

    def kill(self) -> None:
        """End it at once, as a crash."""
        self._end(kill=True)

    def _end(self, *, kill: bool) -> None:
        if self._process is not None:
            (self._process.kill if kill else self._process.terminate)()
            self._process.wait(10)
            self._process = None

    @property
    def pid(self) -> int | None:
        """The process; None while it does not run."""
        return None if self._process is None else self._process.pid

    @property
    def environ(self) -> Mapping[str, str]:
        """What the store reads of its environment."""
        return {"PENSTOCK_STORE_ADDRESS": f"127.0.0.1:{self.port}", "PENSTOCK_STORE_PASSWORD": self.password}

    @property
    def settings(self) -> Settings:
        """Settings of a store on this server."""
        more: dict[str, Any] = {"tls": True, "ca_file": str(self.ca_file)} if self.tls else {}
        return Settings(kind="valkey", cluster=self.cluster, auth="password" if self.password else "none", **more)

    def store(self) -> ValkeyStore:
        """Return a store on this server, not open yet."""
        return ValkeyStore(self.settings, self.environ)

    def clear(self) -> None:
        """Forget all data, so that tests can share the server."""
        self.command("FLUSHALL")


@contextlib.contextmanager
def server(folder: Path, *, password: str = PASSWORD, cluster: bool = False, tls: bool = False) -> Iterator[Server]:
    """Run a server. Raises NoServer."""
    running = Server(folder, password=password, cluster=cluster, tls=tls)
    try:
        yield running.start()
    finally:
        running.kill()


@contextlib.contextmanager
def valkey_place(folder: Path) -> Iterator[tuple[Mapping[str, Any], Mapping[str, str]]]:
    """Run a server; give the settings (as in a config file) and the environment of stores on it. Raises NoServer."""
    with server(folder / "valkey") as running:
        yield running.settings.model_dump(mode="json", by_alias=True, exclude_none=True), running.environ
