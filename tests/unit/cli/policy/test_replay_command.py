"""`penstock policy replay`: files in, comparison out."""

import json
from pathlib import Path
from typing import Any

import pytest

from cli.main import main
from tests.unit.apimgmt.replay.test_replay import CONFIG, LIMITS, request


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "old.yaml").write_text(json.dumps(CONFIG))
    product = {**CONFIG["products"][0], "limits": ["few"]}
    (tmp_path / "new.yaml").write_text(json.dumps({**CONFIG, **LIMITS, "products": [product]}))
    return tmp_path


def record(folder: Path, *requests: Any, **header: Any) -> str:
    lines: list[Any] = [{"recording": 1, "sampleRatio": 1, "bodies": False, **header}]
    lines += [found.model_dump(by_alias=True) for found in requests]
    path = folder / "recording.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def run(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str, new: str = "new.yaml") -> tuple[int, str]:
    recording = str(folder / "recording.jsonl")
    status = main(["policy", "replay", "--recording", recording, "--config-file", str(folder / new), *arguments])
    out, err = capsys.readouterr()
    return status, out + err


def test_against_what_was_recorded(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(files, *(request(i) for i in (3, 2, 1, 0)), request(4, app="gone"), sampleRatio=0.5)
    status, text = run(capsys, files, "--examples", "1")
    assert status == 0
    assert "2 decided alike, 2 differently" in text
    assert "2 x pass  ->  deny limits/few rate_limit_exceeded" in text
    assert "r2  2023-11-14T22:13:02Z  acme/bot  ada@example.com  gemma" in text
    assert "r3 " not in text
    assert "a share of 0.5 of all requests" in text
    assert "1 requests of the app acme/gone left out" in text
    assert "validation (default): needs bodies" in text
    assert run(capsys, files, "--exit-code")[0] == 1


def test_against_another_configuration_as_json(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(files, *(request(i) for i in range(3)))
    status, text = run(capsys, files, "--against", str(files / "new.yaml"), "--json", new="old.yaml")
    found = json.loads(text)
    assert status == 0
    assert (found["requests"], found["same"], found["changed"]) == (3, 2, 1)
    (difference,) = found["differences"]
    assert difference["before"] == {"verdict": "deny", "policy": "limits/few", "code": "rate_limit_exceeded"}
    assert difference["after"]["verdict"] == "pass"
    assert [example["id"] for example in difference["examples"]] == ["r2"]
    assert found["decisions"] == [{"verdict": "pass", "policy": "", "code": "", "shadow": False, "count": 3}]
    assert found["notEvaluated"] == [{"policy": "validation", "where": "default", "reason": "needs bodies"}]


def test_the_same_configuration_decides_alike(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused = {"outcome": "refused", "status": 429, "promptTokens": 0, "completionTokens": 0, "latencyMs": 0}
    by_limit = {"policy": "limits/few", "verdict": "deny", "code": "rate_limit_exceeded", "shadow": False}
    by_validation = {"policy": "validation", "verdict": "deny", "code": "invalid_type", "shadow": False}
    record(
        files,
        request(0),
        request(1, **refused, verdicts=[by_validation]),
        request(2, **refused),
        request(60),
        request(61),
        request(62, **refused, verdicts=[by_limit]),
    )
    status, text = run(capsys, files, "--exit-code")
    assert status == 0, text
    assert "4 decided alike, 0 differently" in text
    assert "1 requests left out that validation refused" in text
    assert "1 requests left out that maxOutputTokens refused" in text


@pytest.mark.parametrize(
    ("break_", "says"),
    [
        (lambda folder: (folder / "recording.jsonl").unlink(), "does not exist"),
        (lambda folder: (folder / "recording.jsonl").write_text("{}\n"), "expected the header"),
        (lambda folder: (folder / "new.yaml").write_text("store: {kind: sqlit}"), "new.yaml"),
        (lambda folder: (folder / "new.yaml").write_text(json.dumps({**CONFIG, "teams": []})), "red"),
        (lambda folder: (folder / "new.yaml").unlink(), "new.yaml"),
        (
            lambda folder: (folder / "new.yaml").write_text(
                json.dumps({**CONFIG, "policies": [{"policy": "limits", "when": "promptToken > 1"}]})
            ),
            "policies[0].when: at character 1: unknown variable promptToken; did you mean promptTokens?",
        ),
    ],
)
def test_what_cannot_be_read(files: Path, capsys: pytest.CaptureFixture[str], break_: Any, says: str) -> None:
    record(files, request(0))
    break_(files)
    status, text = run(capsys, files)
    assert status == 2
    assert says in text
    assert "Traceback" not in text


def test_an_empty_recording(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(files)
    status, text = run(capsys, files)
    assert status == 0
    assert "0 recorded requests" in text
