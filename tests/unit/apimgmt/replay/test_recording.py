"""Recordings: what is in them and what never is, how large they become, who may read them."""

import stat
import threading
from pathlib import Path
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry

from services.apimgmt.call import Finding, Verdict
from services.apimgmt.ledger import record as records
from services.apimgmt.ledger.record import RequestOutcome
from services.apimgmt.recording import MAX_WAITING, Recorder, RecordingError, read
from services.apimgmt.settings import Recording
from services.apimgmt.usage.tokens import Tokens
from services.extproc.api import Ending, Outcome
from tests.unit.apimgmt.calls import make_call

OUTCOME = Outcome(Ending.COMPLETE, 200, 0.1, 1, 1)
SECRET = "psk_secret-credential"


def recorder(path: Path, **settings: Any) -> Recorder:
    made = Recording.model_validate({"path": str(path), "sampleRatio": 1, **settings})
    return Recorder(made, CollectorRegistry())


def observe(made: Recorder, content: str = "private text") -> None:
    headers = {"authorization": f"Bearer {SECRET}", "x-api-key": SECRET, "cookie": SECRET, "x-tier": "gold"}
    call = make_call({"model": "gemma", "messages": [{"content": content}], "stream_options": {}}, headers)
    call.max_output, call.strip_usage = 64, True
    call.findings.append(Finding("script", Verdict.DENY, "no", True))
    record = records.make(call, RequestOutcome.OK, status=200, tokens=Tokens(7, 0, 5, 0, False), latency_ms=30)
    made.observe(call, record, OUTCOME)


@pytest.mark.parametrize("bodies", [False, True])
def test_what_is_recorded(tmp_path: Path, bodies: bool) -> None:
    path = tmp_path / "folder" / "recording.jsonl"
    made = recorder(path, bodies=bodies)
    made.start()
    observe(made)
    made.stop()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    assert SECRET not in text
    assert ("private text" in text) is bodies
    header, requests = read(path)
    assert (header.bodies, header.sample_ratio) == (bodies, 1)
    (found,) = requests
    assert (found.app, found.key, found.model, found.time) == ("bot", "k1", "gemma", 1_700_000_000.0)
    assert (found.expected_prompt_tokens, found.max_output) == (120, 64)
    assert (found.prompt_tokens, found.completion_tokens, found.latency_ms) == (7, 5, 30)
    assert [(v.policy, v.verdict, v.code, v.shadow) for v in found.verdicts] == [("script", "deny", "no", True)]
    assert found.body == ({"model": "gemma", "messages": [{"content": "private text"}]} if bodies else None)
    assert found.headers == ({"x-gateway-model-name": "gemma", "x-tier": "gold"} if bodies else None)


def test_the_files_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "recording.jsonl"
    made = recorder(path, maxBytes=20_000)
    made.start()
    for _ in range(200):
        observe(made)
    made.stop()
    former = tmp_path / "recording.jsonl.1"
    assert {file.name for file in tmp_path.iterdir()} == {path.name, former.name}
    assert 10_000 < path.stat().st_size + former.stat().st_size <= 20_000
    assert stat.S_IMODE(former.stat().st_mode) == 0o600
    _, requests = read(path)
    assert len(list(requests)) > 10


def test_several_writers_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "recording.jsonl"
    made = [recorder(path, maxBytes=100_000) for _ in range(4)]
    for one in made:
        one.start()
    threads = [threading.Thread(target=lambda one=one: [observe(one) for _ in range(30)]) for one in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in made:
        one.stop()
    _, requests = read(path)
    assert len(list(requests)) == 120
    whole = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert whole.count(b'"recording"') == len(list(tmp_path.iterdir()))


def test_a_request_that_fits_no_file_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "recording.jsonl"
    made = recorder(path, bodies=True, maxBytes=4096)
    made.start()
    observe(made, "x" * 5000)
    observe(made)
    made.stop()
    _, requests = read(path)
    assert len(list(requests)) == 1


def test_requests_never_wait(tmp_path: Path) -> None:
    made = recorder(tmp_path / "recording.jsonl")  # its thread does not run
    for _ in range(MAX_WAITING + 5):
        observe(made)
    assert made.meter.counts == {("kept",): MAX_WAITING, ("dropped",): 5}


def test_nothing_is_sampled(tmp_path: Path) -> None:
    made = recorder(tmp_path / "recording.jsonl", sampleRatio=0)
    observe(made)
    assert not made.meter.counts


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("")
    (tmp_path / "recording.jsonl").symlink_to(tmp_path / "target")
    with pytest.raises(OSError):
        recorder(tmp_path / "recording.jsonl").start()


HEADER = b'{"recording": 1, "sampleRatio": 1.0, "bodies": false}\n'
LINE = orjson.dumps(
    {"id": "a", "time": 1, "organization": "o", "app": "a", "operation": "/", "model": "m", "outcome": "ok"}
)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "line 1: expected the header"),
        (b'{"a": 1}\n', "line 1: expected the header"),
        (b'{"recording": 2, "sampleRatio": 1, "bodies": true}\n', "version 2"),
        (HEADER + b"{\n", "line 2: expected a request"),
        (HEADER + LINE + b"\n" + b'{"id": 1}\n', "line 3: expected a request, id"),
    ],
)
def test_what_is_no_recording(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "recording.jsonl"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=says):
        list(read(path)[1])


def test_a_line_that_was_cut_off_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "recording.jsonl"
    path.write_bytes(HEADER + LINE + b"\n" + LINE[:20])
    assert [found.id for found in read(path)[1]] == ["a"]
    with pytest.raises(RecordingError, match="does not exist"):
        read(tmp_path / "none")
