"""Targets: S3 as moto serves it, Cloud Storage as a server of ours does, a folder; and how they fail."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from moto.server import ThreadedMotoServer

from services.apimgmt.ledger.export import ExportError, problems
from services.apimgmt.ledger.export.target import Target
from services.apimgmt.settings import ExportTarget
from tests.unit.apimgmt.export.objects import TOKEN, Objects, object_server
from tests.unit.apimgmt.export.support import Clock, drain, exporter, files, settle, sqlite, union, whole_ledger

NAME = "dt=2027-01-15/part-00000001-abc.jsonl"
SECRET = "wJalrXUtnFEMI-not-a-secret"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT", "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    httpx.put(f"http://{host}:{port}/ledger").raise_for_status()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch) -> Iterator[Objects]:
    with object_server() as running:
        monkeypatch.setenv("GCE_METADATA_HOST", running.host)
        yield running


def s3_client(moto: str) -> Any:
    return boto3.client("s3", endpoint_url=moto, region_name="us-east-1")


def s3_objects(moto: str, prefix: str) -> dict[str, bytes]:
    """Return objects as another client reads them."""
    client = s3_client(moto)
    names = [one["Key"] for one in client.list_objects_v2(Bucket="ledger", Prefix=prefix)["Contents"]]
    return {name: client.get_object(Bucket="ledger", Key=name)["Body"].read() for name in names}


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
async def test_a_ledger_in_s3(moto: str, tmp_path: Path, form: str) -> None:
    store = await sqlite(tmp_path / "store.db")
    await settle(store, range(60))
    settings = {"format": form, "max_records": 25, "endpoint": moto, "region": "eu-west-1"}
    await drain(exporter(store, f"s3://ledger/a/{form}", Clock(), **settings))
    found = s3_objects(moto, f"a/{form}/")
    assert len(found) == 3
    assert all(name.startswith(f"a/{form}/dt=2027-01-15/part-0000000") for name in found)
    assert all(name.endswith(f".{form}") for name in found)
    assert union(found) == await whole_ledger(store)
    await store.close()


async def test_s3_objects_are_created_once(moto: str) -> None:
    target = Target(ExportTarget(url="s3://ledger/once", endpoint=moto))
    await target.put(NAME, b"first")
    await target.put(NAME, b"second")
    assert s3_objects(moto, "once/") == {f"once/{NAME}": b"first"}
    head = s3_client(moto).head_object(Bucket="ledger", Key=f"once/{NAME}")
    assert head["ContentType"] == "application/x-ndjson"


async def test_a_bucket_that_is_not_there_is_told(moto: str) -> None:
    with pytest.raises(ExportError, match=r"s3://nowhere/a: .* cannot be written .*404.*NoSuchBucket"):
        await Target(ExportTarget(url="s3://nowhere/a", endpoint=moto)).put(NAME, b"x")


async def test_a_ledger_in_cloud_storage(objects: Objects, tmp_path: Path) -> None:
    store = await sqlite(tmp_path / "store.db")
    await settle(store, range(40))
    await drain(exporter(store, "gs://ledger/a", Clock(), max_records=15, endpoint=objects.url))
    assert len(objects.held) == 3
    assert all(path.startswith("/ledger/a/dt=2027-01-15/part-") for path in objects.held)
    assert union(objects.held) == await whole_ledger(store)
    assert set(objects.tokens) == {f"Bearer {TOKEN}"}
    await store.close()


@pytest.mark.parametrize("scheme", ["s3", "gs"])
async def test_objects_that_are_there_stay(objects: Objects, scheme: str) -> None:
    target = Target(ExportTarget(url=f"{scheme}://ledger/a", endpoint=objects.url))
    await target.put(NAME, b"first")
    await target.put(NAME, b"second")
    assert objects.held == {f"/ledger/a/{NAME}": b"first"}
    assert len(objects.puts) == 2


@pytest.mark.parametrize("scheme", ["s3", "gs"])
async def test_attempts_that_fail_are_repeated(objects: Objects, scheme: str) -> None:
    objects.fail = objects.lose = 1
    await Target(ExportTarget(url=f"{scheme}://ledger/a", endpoint=objects.url)).put(NAME, b"x")
    assert objects.held == {f"/ledger/a/{NAME}": b"x"}
    assert len(objects.puts) == 3


@pytest.mark.parametrize("scheme", ["s3", "gs"])
@pytest.mark.parametrize("status", [403, 500])
async def test_errors_tell_why_and_show_no_secret(objects: Objects, scheme: str, status: int) -> None:
    objects.status = status
    with pytest.raises(ExportError) as caught:
        await Target(ExportTarget(url=f"{scheme}://ledger/a", endpoint=objects.url)).put(NAME, b"x")
    text = f"{caught.value!r} {caught.value.__cause__!r}"
    assert f"{scheme}://ledger/a: {NAME} cannot be written" in text
    assert str(status) in text
    assert "SomeCode" in text
    assert SECRET not in text
    assert TOKEN not in text
    assert "Signature" not in text


async def test_a_server_that_does_not_answer_is_given_up(objects: Objects) -> None:
    objects.hang.clear()
    target = Target(ExportTarget(url="s3://ledger/a", endpoint=objects.url), put_s=0.2)
    with pytest.raises(ExportError, match="no answer in time"):
        await target.put(NAME, b"x")


async def test_a_folder(tmp_path: Path) -> None:
    target = Target(ExportTarget(url=f"file://{tmp_path}/a/b"))
    await target.put(NAME, b"first")
    await target.put(NAME, b"second")
    assert files(tmp_path) == {f"a/b/{NAME}": b"first"}


async def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ExportError, match="cannot be used"):
        await Target(ExportTarget(url=f"file://{tmp_path}/file/b")).put(NAME, b"x")


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "s3://bucket"},
        {"url": "s3://bucket/a/b=c/", "endpoint": "https://minio.example:9000", "region": "eu-west-1"},
        {"url": "gs://bucket.example.com/a", "endpoint": "http://127.0.0.1:1"},
        {"url": "file:///folder/of mine"},
    ],
)
def test_settings_that_are_good(settings: dict[str, str]) -> None:
    assert problems(ExportTarget.model_validate(settings)) == []


@pytest.mark.parametrize(
    ("settings", "paths"),
    [
        ({"url": "bucket/a"}, ["url"]),
        ({"url": "ftp://bucket/a"}, ["url"]),
        ({"url": "s3://"}, ["url"]),
        ({"url": "s3://key:hidden@bucket/a"}, ["url"]),
        ({"url": "s3://bucket/a?X-Amz-Signature=hidden"}, ["url"]),
        ({"url": "s3://Bucket/a"}, ["url"]),
        ({"url": "s3://bucket/../b"}, ["url"]),
        ({"url": "s3://bucket/a//b"}, ["url"]),
        ({"url": "s3://bucket/a%2fb"}, ["url"]),
        ({"url": "s3://[bucket/a"}, ["url"]),
        ({"url": "file://host/a"}, ["url"]),
        ({"url": "file:///"}, ["url"]),
        ({"url": "s3://bucket", "endpoint": "127.0.0.1:9000"}, ["endpoint"]),
        ({"url": "s3://bucket", "endpoint": "http://me:hidden@host"}, ["endpoint"]),
        ({"url": "file:///a", "endpoint": "http://host", "region": "x"}, ["endpoint", "region"]),
        ({"url": "gs://B", "endpoint": "ftp://host", "region": "x"}, ["url", "endpoint", "region"]),
    ],
)
def test_settings_that_are_not(settings: dict[str, str], paths: list[str]) -> None:
    found = problems(ExportTarget.model_validate(settings))
    assert [problem.path for problem in found] == [f"ledger.export.{path}" for path in paths]
    assert "hidden" not in "".join(map(str, found))


def test_no_target_is_no_problem() -> None:
    assert problems(None) == []
