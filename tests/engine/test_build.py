"""Binaries are built once; what cannot be fetched is a reason to skip, what does not compile is not."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.engine import build
from tests.support.engine.build import BuildError, Unreachable

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(shutil.which("go") is None, reason="there is no `go` on PATH"),
]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of binaries; Go's own stays where it is."""
    for variable in ("GOCACHE", "GOMODCACHE"):  # by default below the folder that is about to change
        found = subprocess.run(["go", "env", variable], capture_output=True, text=True, check=True)
        monkeypatch.setenv(variable, found.stdout.strip())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_without_go_nothing_can_be_built(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(cache))
    with pytest.raises(Unreachable, match="no `go` on PATH"):
        build.build("etcd")


def test_modules_that_cannot_be_fetched_are_a_reason_to_skip(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOMODCACHE", str(cache / "empty"))
    monkeypatch.setenv("GOPROXY", "off")
    monkeypatch.setenv("GOFLAGS", "-modcacherw")
    with pytest.raises(Unreachable, match="GOPROXY=off"):
        build.build("etcd")
    build._attempt.cache_clear()
    with pytest.raises(pytest.skip.Exception, match="cannot be built here"):
        build.require("etcd")
    build._attempt.cache_clear()


def test_code_that_does_not_compile_is_no_reason_to_skip(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = tmp_path / "binaries"
    shutil.copytree(build.MODULES / "etcd", modules / "etcd")
    (modules / "etcd" / "main.go").write_text("package main\n\nfunc main() { undefined() }\n")
    monkeypatch.setattr(build, "MODULES", modules)
    with pytest.raises(BuildError, match="undefined: undefined"):
        build.build("etcd")


def test_a_binary_is_named_by_everything_that_decides_it(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = build.path_of("etcd")
    assert before.is_relative_to(cache)
    modules = cache / "binaries"
    shutil.copytree(build.MODULES / "etcd", modules / "etcd")
    monkeypatch.setattr(build, "MODULES", modules)
    assert build.path_of("etcd") == before
    (modules / "etcd" / "main.go").write_text("package main\n")
    assert build.path_of("etcd") != before
