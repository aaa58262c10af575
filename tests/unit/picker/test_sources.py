import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from services.extproc.config import ConfigError
from services.picker.discovery import parse_source
from services.picker.pool import Address
from services.picker.sources import DnsSource, FileSource, SourceError


def replace(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    os.replace(fresh, path)


def entry(name: str, port: int, host: str = "127.0.0.1") -> str:
    return f"  - {{name: {name}, address: {host}, port: {port}}}\n"


async def test_a_file_is_read_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "replicas.yaml"
    source = FileSource(path)
    replace(path, "replicas:\n" + entry("a", 1) + entry("b", 2, "'::1'"))
    assert await source.read() == [Address("a", "127.0.0.1", 1), Address("b", "::1", 2)]
    assert await source.read() is None
    replace(path, "replicas:\n" + entry("c", 3))
    assert await source.read() == [Address("c", "127.0.0.1", 3)]
    replace(path, "replicas: []\n")
    assert await source.read() == []


async def test_a_projected_volume_swaps_a_symbolic_link(tmp_path: Path) -> None:
    for name, port in (("one", 1), ("two", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "replicas.yaml").write_text("replicas:\n" + entry(name, port))
    (tmp_path / "data").symlink_to("one")
    source = FileSource(tmp_path / "data" / "replicas.yaml")
    assert await source.read() == [Address("one", "127.0.0.1", 1)]
    (tmp_path / "next").symlink_to("two")
    os.replace(tmp_path / "next", tmp_path / "data")
    assert await source.read() == [Address("two", "127.0.0.1", 2)]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("replicas: [", "expected YAML"),
        ("replica: []", "did you mean 'replicas'"),
        ("replicas: [{name: a, address: localhost, port: 1}]", r"replicas\[0\].address: expected an IP address"),
        ("replicas: [{name: a, address: 10.0.0.1, port: 0}]", r"replicas\[0\].port"),
        ("replicas: [{name: a, address: 10.0.0.1, port: 1}, {name: b, address: 10.0.0.1, port: 1}]", "two replicas"),
    ],
)
async def test_a_bad_file_is_named_once_and_a_good_one_heals(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "replicas.yaml"
    source = FileSource(path)
    replace(path, text)
    with pytest.raises(SourceError, match=named) as caught:
        await source.read()
    assert str(path) in str(caught.value)
    assert await source.read() is None
    replace(path, "replicas:\n" + entry("a", 1))
    assert await source.read() == [Address("a", "127.0.0.1", 1)]


async def test_a_missing_file_is_an_error_each_time(tmp_path: Path) -> None:
    source = FileSource(tmp_path / "none.yaml")
    for _ in range(2):
        with pytest.raises(SourceError, match="No such file"):
            await source.read()


async def test_dns_keeps_quiet_while_the_answer_is_the_same() -> None:
    answers: list[Sequence[str] | OSError] = [
        ["10.0.0.2", "10.0.0.1"],
        ["10.0.0.1", "10.0.0.2", "10.0.0.2"],
        OSError("no such name"),
        ["10.0.0.3"],
    ]
    asked = []

    async def resolver(host: str, port: int) -> Sequence[str]:
        asked.append((host, port))
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    source = DnsSource("pool.inference.svc", 8000, resolver)
    first = await source.read()
    assert first == [Address("10.0.0.1:8000", "10.0.0.1", 8000), Address("10.0.0.2:8000", "10.0.0.2", 8000)]
    assert await source.read() is None
    with pytest.raises(SourceError, match="no such name"):
        await source.read()
    third = await source.read()
    assert third is not None
    assert [address.endpoint for address in third] == ["10.0.0.3:8000"]
    assert set(asked) == {("pool.inference.svc", 8000)}


async def test_the_systems_resolver_answers() -> None:
    found = await DnsSource("localhost", 80).read()
    assert found
    assert all(address.port == 80 for address in found)


def test_sources_by_flag() -> None:
    assert isinstance(parse_source("file:/a/b:c.yaml", "pool", "ns"), FileSource)
    assert isinstance(parse_source("dns:pool.ns.svc:8000", "pool", "ns"), DnsSource)
    for wrong in ("", "file:", "dns:host", "dns::80", "dns:host:0", "dns:host:99999", "http://x"):
        with pytest.raises(ConfigError, match="expected kubernetes, dns:HOST:PORT or file:PATH"):
            parse_source(wrong, "pool", "ns")
