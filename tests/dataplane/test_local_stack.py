"""`penstock local` as users run it, with the declared environment `local`."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from cli.local.process import identity
from cli.local.state import wait_for
from tests.support.local import FAST, ROOT, Stack, penstock, running_stack

LLAMA, GEMMA, ADAPTER = "llama-3.1-8b", "gemma-3-12b", "LoRA-1-gemma"


@pytest.fixture
def client(stack: Stack) -> OpenAI:
    return OpenAI(base_url=stack.endpoint, api_key=stack.api_key, max_retries=0, timeout=20)


def ask(client: OpenAI, model: str, **headers: str) -> Any:
    """Return the raw response to a short prompt."""
    messages: Any = [{"role": "user", "content": "Say hello."}]
    return client.chat.completions.with_raw_response.create(
        model=model, messages=messages, max_tokens=5, extra_headers=headers
    )


def post(stack: Stack, body: bytes, **headers: str) -> tuple[int, dict[str, Any]]:
    usual = {"content-type": "application/json", "authorization": f"Bearer {stack.api_key}"}
    request = urllib.request.Request(f"{stack.endpoint}/chat/completions", body, {**usual, **headers})
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def prompt(model: str, size: int = 10) -> bytes:
    return json.dumps({"model": model, "max_tokens": 3, "messages": [{"role": "user", "content": "x" * size}]}).encode()


def test_each_model_is_served_by_its_own_replicas(client: OpenAI) -> None:
    for model, prefix in ((LLAMA, "llama-3-1-8b-"), (GEMMA, "gemma-3-12b-a-"), (ADAPTER, "gemma-3-12b-a-")):
        answer = ask(client, model)
        assert answer.headers["x-penstock-replica"].startswith(prefix)
        assert answer.parse().model == model


def test_streams(client: OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "Count."}]
    chunks = list(client.chat.completions.create(model=GEMMA, messages=messages, max_tokens=20, stream=True))
    assert chunks[-1].choices[0].finish_reason == "length"


def test_status_json(stack: Stack) -> None:
    state = json.loads(stack.run("status", "--json").stdout)
    assert (state["environment"], state["phase"], state["endpoint"]) == ("local", "ready", stack.endpoint)
    kinds: dict[str, int] = {}
    for piece in state["pieces"]:
        assert {"name", "kind", "pid", "address", "state", "restarts"} <= piece.keys()
        assert piece["state"] == "ready"
        host, _, port = piece["address"].partition(":")
        with socket.create_connection((host, int(port)), 5):
            kinds[piece["kind"]] = kinds.get(piece["kind"], 0) + 1
    assert kinds == {"envoy": 1, "callout": 2, "picker": 3, "replica": 9}


def test_what_has_no_effect_is_named(stack: Stack) -> None:
    assert "PodDisruptionBudget" in stack.run("status").stdout
    text = stack.run("status", "--verbose").stdout
    assert "Gateway HTTPS listener" in text
    assert "PodDisruptionBudget (body-router" in text


def test_logs(stack: Stack, client: OpenAI) -> None:
    request_id = "a-request-of-this-test"
    ask(client, LLAMA, **{"x-request-id": request_id})
    assert '"message":"serving"' in stack.run("logs", "body-router").stdout
    assert wait_for(lambda: request_id in stack.run("logs", "access").stdout, 10)
    entry = next(json.loads(line) for line in stack.run("logs", "access").stdout.splitlines() if request_id in line)
    assert (entry["status"], entry["model"], entry["details"]) == (200, LLAMA, "via_upstream")
    assert entry["served"] == entry["upstream"] == entry["destination"].split(",")[0]
    everything = stack.run("logs").stdout
    assert "body-router" in everything
    assert "access" in everything
    unknown = stack.run("logs", "nobody")
    assert unknown.returncode == 2
    assert "body-router" in unknown.stderr


def test_a_second_up_is_refused(stack: Stack) -> None:
    for flags in ((), ("--detach",)):
        second = stack.run("up", *flags)
        assert second.returncode == 1
        assert "penstock local down --env local" in second.stderr


def test_clients_cannot_choose_the_backend_nor_steer_envoy(stack: Stack, client: OpenAI) -> None:
    victim = stack.pieces["gemma-3-12b-a-0"]["address"]
    names = ("x-gateway-destination-endpoint", "x-gateway-destination-endpoint-subset", "x-gateway-model-name")
    headers = dict.fromkeys(names, victim)
    headers |= {"x-gateway-base-model-name": GEMMA, "x-envoy-upstream-rq-timeout-ms": "1", "x-envoy-max-retries": "9"}
    for _ in range(5):
        answer = ask(client, LLAMA, **headers)
        assert answer.headers["x-penstock-replica"].startswith("llama-3-1-8b-")


def test_a_crashed_piece_is_restarted_on_its_port(stack: Stack, client: OpenAI) -> None:
    before = stack.pieces["body-router"]
    stack.kill("body-router")
    assert wait_for(lambda: stack.pieces["body-router"]["restarts"] == before["restarts"] + 1, 20)
    stack.await_state("ready", "body-router")
    stack.await_healthy()
    assert stack.pieces["body-router"]["address"] == before["address"]
    assert ask(client, LLAMA).status_code == 200


def test_requests_pass_while_one_replica_is_down(stack: Stack) -> None:
    with stack.down("gemma-3-12b-a-0"):
        answers = [post(stack, prompt(GEMMA)) for _ in range(12)]
        assert [status for status, _ in answers] == [200] * 12


def test_no_replica_at_all_is_an_openai_error(stack: Stack) -> None:
    with stack.down(*(f"gemma-3-12b-a-{index}" for index in range(3))):
        status, body = post(stack, prompt(GEMMA))
        assert status == 503
        assert set(body["error"]) == {"message", "type", "param", "code"}


def test_picker_down_under_fail_close_is_503_for_its_pool_alone(stack: Stack) -> None:
    with stack.down("gemma-3-12b-a-picker"):
        status, body = post(stack, prompt(GEMMA))
        assert (status, body["error"]["code"]) == (503, "service_unavailable")
        assert post(stack, prompt(LLAMA))[0] == 200


def test_picker_down_under_fail_open_spreads_requests(tmp_path: Path) -> None:
    root = tmp_path / "project"
    root.mkdir()
    for name in ("Pulumi.yaml", "Pulumi.local.yaml"):
        text = (
            (ROOT / name)
            .read_text()
            .replace("      replicaSets:\n", "      failureMode: FailOpen\n      replicaSets:\n")
        )
        (root / name).write_text(text)
    picker, port = "gemma-3-12b-a-picker", "gemma-3-12b-a-picker:9002"
    with running_stack(tmp_path / "state", "--replicas", "2", root=root) as running:
        assert "FailOpen" in (root / "Pulumi.local.yaml").read_text()
        with running.down(picker):
            assert wait_for(lambda: running.unhealthy() != [], 20)
            client = OpenAI(base_url=running.endpoint, api_key=running.api_key, max_retries=0)
            answers = [ask(client, GEMMA) for _ in range(4)]
            assert {answer.headers["x-penstock-replica"] for answer in answers} == {
                "gemma-3-12b-a-0",
                "gemma-3-12b-a-1",
            }
            assert running.stats(f"cluster.service/inference/{port.replace(':', '_')}.*none_healthy")


def test_body_router_down_is_an_openai_error(stack: Stack) -> None:
    with stack.down("body-router"):
        status, body = post(stack, prompt(LLAMA))
        assert (status, body["error"]["type"]) == (500, "server_error")


def test_large_bodies_pass(stack: Stack) -> None:
    # 5 MB are more tokens than the model takes: the replica's own error shows that the whole body arrived.
    status, body = post(stack, prompt(LLAMA, 5_000_000))
    assert status == 400
    assert "context" in body["error"]["message"] or "tokens" in body["error"]["message"]
    status, body = post(stack, prompt(LLAMA, 11_000_000))
    assert status == 413


def test_up_in_the_foreground_one_replica_fixed_port_and_interrupt(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {**os.environ, **FAST, "PENSTOCK_STATE_DIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "cli.main", "local", "up", "--port", str(port), "--replicas", "1", "--verbose"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        state_file = tmp_path / "local" / "state.json"
        assert wait_for(lambda: state_file.exists() and json.loads(state_file.read_text())["phase"] == "ready", 40)
        state = json.loads(state_file.read_text())
        pieces = state["pieces"]
        answer = ask(OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=state["api_key"]), LLAMA)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    assert answer.status_code == 200
    assert process.returncode == 0
    assert len([piece for piece in pieces if piece["kind"] == "replica"]) == 3
    assert [piece for piece in pieces if identity(piece["pid"]) == piece["identity"]] == []
    assert f"http://127.0.0.1:{port}/v1" in output
    assert "base_url=" in output
    assert "PodDisruptionBudget" in output
    assert not state_file.exists()


def test_a_port_in_use_is_refused(tmp_path: Path) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        env = {**os.environ, "PENSTOCK_STATE_DIR": str(tmp_path)}
        result = penstock(env, "up", "--detach", "--port", str(busy.getsockname()[1]))
    assert result.returncode == 2
    assert "is in use" in result.stdout + result.stderr


def test_nothing_running(tmp_path: Path) -> None:
    env = {**os.environ, "PENSTOCK_STATE_DIR": str(tmp_path)}
    assert penstock(env, "down").returncode == 0
    status = penstock(env, "status", "--json")
    assert status.returncode == 1
    assert json.loads(status.stdout)["pieces"] == []
    assert penstock(env, "up", "--env", "nowhere").returncode == 2
    assert penstock(env, "up", "--env", "../x").returncode == 2


def test_a_detached_stack_leaves_what_outlives_it_and_nothing_else(tmp_path: Path) -> None:
    with running_stack(tmp_path, "--replicas", "1") as running:
        pieces = running.pieces.values()
        supervisor = running.state["pid"]
    assert [piece["name"] for piece in pieces if identity(piece["pid"])] == []
    assert identity(supervisor) is None
    left = {path.name for path in (tmp_path / "local").iterdir()}
    assert left == {"lock", "logs", "supervisor.log", "volumes", "secrets.json", "admin-token", "development-key"}
    for name in ("secrets.json", "admin-token", "development-key"):
        assert stat.S_IMODE((tmp_path / "local" / name).stat().st_mode) == 0o600


def test_the_development_key_outlives_the_run_and_is_made_anew_when_it_was_revoked(tmp_path: Path) -> None:
    with running_stack(tmp_path, "--replicas", "1") as running:
        first = running.api_key
        assert ask(OpenAI(base_url=running.endpoint, api_key=first, max_retries=0), LLAMA).status_code == 200
    with running_stack(tmp_path, "--replicas", "1") as running:
        assert running.api_key == first
        env = {**os.environ, "PENSTOCK_STATE_DIR": str(tmp_path)}
        revoke = [sys.executable, "-m", "cli.main", "keys", "revoke", "acme/laptop", first.split("_")[1]]
        revoked = subprocess.run(revoke, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=30)
        assert revoked.returncode == 0, revoked.stderr
    with running_stack(tmp_path, "--replicas", "1") as running:
        assert running.api_key != first
        assert ask(OpenAI(base_url=running.endpoint, api_key=running.api_key), LLAMA).status_code == 200


def test_without_a_key_there_is_an_openai_error_and_no_answer(stack: Stack) -> None:
    status, body = post(stack, prompt(LLAMA), authorization="Bearer psk_unknown")
    assert (status, body["error"]["code"]) == (401, "invalid_api_key")
