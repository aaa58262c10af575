"""Config files and certificates that change while a process runs."""

import asyncio
import datetime
import logging
import os
import ssl
import threading
from pathlib import Path

import grpc.aio
import pytest
from cryptography import x509
from penstock._labels import config_hash
from prometheus_client import REGISTRY

from services.extproc.api import Filter
from services.extproc.config import ConfigError, ConfigModel, load_all, load_config
from services.extproc.reload import Reloader, digest
from services.extproc.service import Service
from services.extproc.tls import VALIDITY, Certificates, TlsError, self_signed


class Config(ConfigModel):
    word: str
    count: int = 0


class Words(Service):
    def __init__(self, *files: Path) -> None:
        super().__init__()
        self.files = files
        self.config: Config | None = None
        self.loads = 0
        self.error: Exception | None = None

    def load(self) -> Config:
        self.loads += 1
        assert threading.current_thread() is threading.main_thread() or self.loads > 1
        if self.error:
            raise self.error
        return load_config(self.files[0], Config)

    def apply(self, config: Config) -> None:
        self.config = config


def swap(folder: Path, generation: int, **files: str) -> None:
    """Publish files as a kubelet does: a new folder, and a symbolic link that is replaced."""
    fresh = folder / f"..{generation}"
    fresh.mkdir()
    for name, text in files.items():
        (fresh / f"{name}.yaml").write_text(text)
        link = folder / f"{name}.yaml"
        if not link.is_symlink():
            link.symlink_to(f"..data/{name}.yaml")
    (folder / "..data_tmp").symlink_to(fresh.name)
    os.replace(folder / "..data_tmp", folder / "..data")


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"penstock_extproc_config_{name}", labels) or 0.0


async def test_a_swapped_mount_is_loaded_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    swap(tmp_path, 1, config="word: one")
    service = Words(tmp_path / "config.yaml")
    reloader = Reloader(service)
    reloader.first()
    before, accepted = reloader.version, metric("reload_total", result="accepted")
    assert metric("info", version=before) == 1
    assert not await reloader.look()
    swap(tmp_path, 2, config="word: two")
    with caplog.at_level(logging.INFO):
        assert await reloader.look()
        assert not await reloader.look()
    assert service.config == Config(word="two")
    assert service.loads == 2
    assert metric("reload_total", result="accepted") == accepted + 1
    assert metric("info", version=before) == 0
    assert metric("info", version=reloader.version) == 1
    assert [vars(record)["config_version"] for record in caplog.records] == [reloader.version]


async def test_a_wrong_config_is_named_and_the_last_good_one_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    swap(tmp_path, 1, config="word: one")
    service = Words(tmp_path / "config.yaml")
    reloader = Reloader(service)
    reloader.first()
    version, refused = reloader.version, metric("reload_total", result="refused")
    swap(tmp_path, 2, config="wrod: two\ncount: many")
    assert not await reloader.look()
    assert not await reloader.look()
    assert service.config == Config(word="one")
    assert (reloader.version, metric("refused"), metric("info", version=version)) == (version, 1, 1)
    assert metric("reload_total", result="refused") == refused + 1
    (record,) = caplog.records
    problems = {problem["path"]: problem for problem in vars(record)["problems"]}
    assert problems["wrod"] == {
        "path": "wrod", "value": "'two'", "expected": "unknown key", "fix": "did you mean 'word'?",
    }  # fmt: skip
    assert {"word", "count"} <= problems.keys()
    assert vars(record)["file"] == str(tmp_path / "config.yaml")
    swap(tmp_path, 3, config="word: one")
    assert not await reloader.look(), "what is in use came back"
    assert metric("refused") == 0
    swap(tmp_path, 4, config="word: four")
    assert await reloader.look()
    assert service.config == Config(word="four")


async def test_a_touched_file_is_not_loaded_again(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("word: one")
    service = Words(path)
    reloader = Reloader(service)
    reloader.first()
    os.utime(path, ns=(1, 1))
    assert not await reloader.look()
    assert service.loads == 1


async def test_a_file_that_goes_is_refused_and_may_come_back(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("word: one")
    service = Words(path)
    reloader = Reloader(service)
    reloader.first()
    path.unlink()
    assert not await reloader.look()
    assert metric("refused") == 1
    path.write_text("word: one")
    assert not await reloader.look()
    assert metric("refused") == 0
    assert service.config == Config(word="one")


async def test_a_change_between_two_looks_at_the_same_files_is_not_lost(tmp_path: Path) -> None:
    """Files that change while they are read are read again, since they are looked at before."""
    path = tmp_path / "config.yaml"
    path.write_text("word: one")
    service = Words(path)
    reloader = Reloader(service)
    load = service.load

    def slow() -> Config:
        found = load()
        path.write_text(f"word: {found.word}-later")
        return found

    service.load = slow  # type: ignore[method-assign]
    reloader.first()
    service.load = load  # type: ignore[method-assign]
    assert await reloader.look()
    assert service.config == Config(word="one-later")


async def test_a_loader_that_breaks_counts_as_refusal(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("word: one")
    service = Words(path)
    reloader = Reloader(service)
    reloader.first()
    path.write_text("word: two")
    service.error = RuntimeError("bug")
    assert not await reloader.look()
    assert service.config == Config(word="one")


async def test_without_files_nothing_is_watched() -> None:
    reloader = Reloader(Service([]))
    reloader.first()
    async with asyncio.timeout(1):
        await reloader.run(lambda: None)
    assert reloader.version == ""
    filters: list[Filter] = []
    assert list(Service(filters).filters) == []


def test_the_version_is_that_of_the_config_map() -> None:
    for files in ({"config.yaml": "a: 1"}, {"b.yaml": "é\n", "a.yaml": ""}, {}):
        assert digest(files) == config_hash(files)


def test_problems_of_two_files_at_once(tmp_path: Path) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text("count: x")
    two.write_text("word: 1")
    with pytest.raises(ConfigError) as caught:
        load_all(lambda: load_config(one, Config), lambda: load_config(two, Config))
    assert str(one) in str(caught.value)
    assert [problem.path for problem in caught.value.problems] == [
        f"{one}: word", f"{one}: count", f"{two}: word",
    ]  # fmt: skip
    two.write_text("word: fine")
    with pytest.raises(ConfigError) as caught:
        load_all(lambda: load_config(one, Config), lambda: load_config(two, Config))
    assert caught.value.source == str(one)
    one.write_text("word: fine")
    both = load_all(lambda: load_config(one, Config), lambda: load_config(two, Config))
    assert both == (Config(word="fine"), Config(word="fine"))


def mount(folder: Path) -> bytes:
    key, certificate = self_signed("callout", "127.0.0.1")
    for name, data in (("tls.key", key), ("tls.crt", certificate)):
        (folder / "new").write_bytes(data)
        os.replace(folder / "new", folder / name)
    return certificate


async def test_handshakes_get_a_replaced_certificate_and_connections_stay(tmp_path: Path) -> None:
    first = mount(tmp_path)
    certificates = Certificates.of("files", "callout", "127.0.0.1", tmp_path)
    assert certificates is not None
    server = grpc.aio.server()
    port = server.add_secure_port("127.0.0.1:0", certificates.credentials())
    await server.start()

    async def shown() -> str:
        return await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))

    try:
        async with grpc.aio.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(first)) as channel:
            await channel.channel_ready()
            assert await shown() == first.decode()
            second = mount(tmp_path)
            certificates.look()
            assert await shown() == second.decode()
            (tmp_path / "tls.key").write_bytes(self_signed("other", "127.0.0.1")[0])
            certificates.look()
            assert await shown() == second.decode(), "a pair that does not match is refused"
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary("/none/none")(b"", timeout=5)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED, "the first connection still lives"
        third = mount(tmp_path)
        certificates.look()
        assert await shown() == third.decode()
    finally:
        await server.stop(0)


def test_a_self_signed_certificate_is_made_anew_before_it_expires() -> None:
    made: list[bytes] = []

    def make() -> tuple[bytes, bytes]:
        pair = self_signed("callout", "127.0.0.1")
        made.append(pair[1])
        return pair

    certificates = Certificates(make)
    certificates.look()
    assert len(made) == 1
    certificates._expires = datetime.datetime.now(datetime.UTC) + VALIDITY / 2 - datetime.timedelta(minutes=1)
    certificates.look()
    certificates.look()
    assert len(made) == 2
    left = x509.load_pem_x509_certificate(made[1]).not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    assert left > VALIDITY - datetime.timedelta(minutes=5)


def test_modes_of_certificates(tmp_path: Path) -> None:
    assert Certificates.of("off", "callout", "127.0.0.1", None) is None
    with pytest.raises(TlsError, match="give --tls-dir"):
        Certificates.of("files", "callout", "127.0.0.1", None)
    with pytest.raises(TlsError, match=r"expected tls\.crt and tls\.key"):
        Certificates.of("files", "callout", "127.0.0.1", tmp_path)
