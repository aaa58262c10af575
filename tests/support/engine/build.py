"""Builds the engine, an API server and upstream's picker from Go modules, once, into a cache.

    python -m tests.support.engine.build               # all of them, with progress
    python -m tests.support.engine.build kube-apiserver etcd

Each binary has a folder below `tests/engine/binaries` with a `go.mod` of its own, because one module graph for all
would mix versions of etcd, OpenTelemetry and Kubernetes that do not fit together. All versions are pinned there; Go
checks what it downloads against its checksum database, hence no `go.sum`.

The cache is `${XDG_CACHE_HOME:-~/.cache}/penstock/engine/<name>-<hash of what decides the binary>/<name>`. An
interrupted build goes on where it was, since Go caches modules and compiled packages; two builds at once wait for
each other.
"""

import argparse
import contextlib
import fcntl
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import pytest

MODULES = Path(__file__).resolve().parents[2] / "engine" / "binaries"
UNREACHABLE = 3
"""Exit code of the command when Go or its modules are out of reach."""

_NETWORK = re.compile(
    r"dial tcp|no such host|i/o timeout|TLS handshake|connection re(?:fused|set)|proxyconnect|Proxy Authentication"
    r"|disabled by GOPROXY=off|toolchain not available|unexpected EOF|deadline exceeded"
    r"|: (?:403|404|407|410|429|5\d\d) "
)
"""What Go says when a module or toolchain cannot be fetched, as opposed to code that does not compile."""


class Unreachable(Exception):
    """Go is not installed or its modules cannot be fetched from here."""


class BuildError(Exception):
    """The modules are there, but do not build."""


@dataclass(frozen=True)
class Binary:
    """One program to build.

    Attributes:
        package: import path of its main package.
        module, version: the module that decides its behaviour, as in its `go.mod` (checked when building).
        stamp: variable that the linker sets to the version, when the program does not find it out by itself.
        cold_s: seconds that the first build took on two cores, for the progress line.
    """

    package: str
    module: str
    version: str
    cold_s: int
    stamp: str = ""

    def ldflags(self) -> str:
        """Return linker flags: no symbol tables, and the version where it has to be set."""
        return " ".join(["-s -w", *([f"-X {self.stamp}"] if self.stamp else [])])


BINARIES = {
    "etcd": Binary(".", "go.etcd.io/etcd/server/v3", "v3.6.16", 50),
    "kube-apiserver": Binary(
        "k8s.io/kubernetes/cmd/kube-apiserver",
        "k8s.io/kubernetes",
        "v1.35.4",
        200,
        "k8s.io/component-base/version.gitVersion=v1.35.4",
    ),
    "pulumi": Binary(
        "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi",
        "github.com/pulumi/pulumi/pkg/v3",
        "v3.254.0",
        200,
        "github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=3.254.0",
    ),
    "pulumi-language-yaml": Binary(
        "github.com/pulumi/pulumi-yaml/cmd/pulumi-language-yaml", "github.com/pulumi/pulumi-yaml", "v1.38.0", 50
    ),
    "epp": Binary(
        "sigs.k8s.io/gateway-api-inference-extension/cmd/epp",
        "sigs.k8s.io/gateway-api-inference-extension",
        "v1.5.0",
        90,
    ),
}
"""In the order of building: what most tests wait for comes first."""


def require(name: str) -> Path:
    """Return the path of a binary for a test, built now if need be; skip where it cannot be had.

    Raises:
        BuildError: it does not compile, which is a defect and no reason to skip.
    """
    try:
        return _once(name)
    except Unreachable as reason:
        pytest.skip(f"{name} cannot be built here: {reason}")


@functools.cache
def _attempt(name: str) -> Path | Unreachable:
    try:
        return build(name)
    except Unreachable as reason:
        return reason


def _once(name: str) -> Path:
    """As `build`, but ask an unreachable network only once per process."""
    found = _attempt(name)
    if isinstance(found, Unreachable):
        raise found
    return found


def build(name: str) -> Path:
    """Return the path of a binary, built now if it is not in the cache.

    Raises:
        Unreachable: Go is not installed, or modules cannot be fetched.
        BuildError: anything else that Go complains about.
    """
    target = path_of(name)
    if target.exists():
        return target
    if shutil.which("go") is None:
        raise Unreachable("there is no `go` on PATH (Go 1.26 or newer, https://go.dev/dl)")
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.parent / "lock", name):
        if not target.exists():
            _compile(name, target)
    return target


def path_of(name: str) -> Path:
    """Return where a binary is, or will be once it is built."""
    binary = BINARIES[name]
    decisive = [binary.package.encode(), binary.ldflags().encode()]
    decisive += [file.read_bytes() for file in sorted((MODULES / name).iterdir()) if file.suffix in (".go", ".mod")]
    digest = hashlib.sha256(b"\0".join(decisive)).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "penstock" / "engine" / f"{name}-{digest}" / name


def _compile(name: str, target: Path) -> None:
    binary, started = BINARIES[name], time.monotonic()
    work = target.parent / "src"
    shutil.copytree(MODULES / name, work, dirs_exist_ok=True)
    if f"{binary.module} {binary.version}\n" not in (work / "go.mod").read_text():
        raise BuildError(f"{MODULES / name}/go.mod does not require {binary.module} {binary.version}")
    _say(f"{name} {binary.version}: fetching modules")
    _fetch(binary, work)
    _say(f"{name} {binary.version}: compiling (about {binary.cold_s} s on two cores when Go's cache is empty)")
    partial = target.with_suffix(".partial")
    flags = ["-mod=mod", "-trimpath", "-buildvcs=false", "-ldflags", binary.ldflags()]
    # Everything is fetched: what fails without network from here on is a defect.
    code, said = _go(["build", "-v", *flags, "-o", str(partial), binary.package], work, name, {"GOPROXY": "off"})
    if code:
        raise BuildError(f"{name} {binary.version} does not build:\n{said[-4000:]}")
    partial.replace(target)
    shutil.rmtree(work)
    size = target.stat().st_size / 1e6
    _say(f"{name} {binary.version}: built in {time.monotonic() - started:.0f} s, {size:.0f} MB, {target}")


def _fetch(binary: Binary, work: Path) -> None:
    code, said = _go(["list", "-mod=mod", "-deps", "-f", "{{.ImportPath}}", binary.package], work, "", {})
    if code == 0:
        return
    if _NETWORK.search(said):
        last = said.strip().splitlines()[-1]
        raise Unreachable(f"its Go modules cannot be fetched ({last})")
    raise BuildError(f"the modules of {binary.package} do not fit together:\n{said[-4000:]}")


def _go(arguments: Sequence[str], work: Path, label: str, env: dict[str, str]) -> tuple[int, str]:
    """Run Go and return its exit code and stderr. With a label, tell every 15 s how many packages are compiled."""
    lines: list[str] = []
    started = time.monotonic()
    with subprocess.Popen(
        ["go", *arguments],
        cwd=work,
        env={**os.environ, "GOWORK": "off", **env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        reader = Thread(target=lambda: lines.extend(process.stderr or ()), daemon=True)
        reader.start()
        try:
            while reader.is_alive():
                reader.join(15)
                if label and reader.is_alive():
                    _say(f"{label}: {len(lines)} packages compiled, {time.monotonic() - started:.0f} s")
        except BaseException:
            process.terminate()  # Ctrl-C or a test's timeout: what is compiled stays in Go's cache
            raise
    return process.returncode, "".join(lines)


@contextlib.contextmanager
def _locked(path: Path, name: str) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(f"{name}: waiting for another build of it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _say(message: str) -> None:
    sys.stderr.write(f"engine: {message}\n")
    sys.stderr.flush()


def main() -> int:
    """Build what the command line names, by default everything."""
    parser = argparse.ArgumentParser(description="Build the binaries of the engine tests into a cache.")
    parser.add_argument("names", nargs="*", help=f"by default all: {', '.join(BINARIES)}")
    names = parser.parse_args().names or list(BINARIES)
    if unknown := sorted(set(names) - set(BINARIES)):
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(BINARIES)}")
    for name in names:
        try:
            build(name)
        except Unreachable as reason:
            _say(f"{name} cannot be built here: {reason}")
            return UNREACHABLE
        except BuildError as error:
            _say(str(error))
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
