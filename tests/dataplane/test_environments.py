"""Every environment of the repository, served on this machine from the graph that it would deploy."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from cli.graph.program import record_environment
from cli.graph.project import environments
from tests.support.local import ROOT, Stack, running_stack

OTHERS = [name for name in environments(ROOT) if name != "local"]


@pytest.fixture(scope="module", params=OTHERS)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder: Path = tmp_path_factory.mktemp(request.param)
    with running_stack(folder, "--replicas", "1", environment=request.param) as stack:
        yield stack


def test_every_model_and_adapter_answers(served: Stack) -> None:
    client = OpenAI(base_url=served.endpoint, api_key=served.api_key, max_retries=0, timeout=20)
    assert served.state["models"]
    for model in served.state["models"]:
        messages: Any = [{"role": "user", "content": "Say hello."}]
        answer = client.chat.completions.create(model=model, messages=messages, max_tokens=3)
        assert answer.model == model
        chunks = list(client.chat.completions.create(model=model, messages=messages, max_tokens=3, stream=True))
        assert chunks[-1].choices[0].finish_reason == "length"


def test_what_requests_pass_by_is_named(served: Stack) -> None:
    """Each extension of the traffic chain is a callout of Envoy's, or a warning says that requests pass it by."""
    passed = {entry["what"].removeprefix("extension ") for entry in served.state["not_realized"] if entry["passed_by"]}
    configured = (served.state_dir / "envoy.json").read_text()
    graph = record_environment(served.state["environment"], preview=False, root=ROOT)
    declared = {
        extension["name"]
        for manifest in graph.manifests()
        if manifest["kind"] == "GCPTrafficExtension"
        for chain in manifest["spec"]["extensionChains"]
        for extension in chain["extensions"]
    }
    assert declared
    for name in declared:
        asked = f"/{name}" in configured
        assert asked != (name in passed), name
