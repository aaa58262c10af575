"""The data path in front of real vLLM processes: `penstock local up --engine vllm`.

Needs $PENSTOCK_VLLM (the `vllm` executable) and $PENSTOCK_TEST_MODELS, a folder outside /tmp with a small model
`tiny-llama` (context 2,048) and its adapters `lora-a` and `lora-b`. Run by `make test-vllm`; on two cores vLLM takes a
minute to start.
"""

import os
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
import yaml
from openai import OpenAI

from tests.support import local
from tests.support.local import ROOT, Stack, running_stack

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

SMALL = ["--dtype=float32", "--max-num-seqs=4", "--max-num-batched-tokens=2048", "--block-size=32"]
SMALL += ["--num-gpu-blocks-override=128", "--enforce-eager"]


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    missing = [name for name in ("PENSTOCK_VLLM", "PENSTOCK_TEST_MODELS") if not os.environ.get(name)]
    if missing:
        pytest.skip(f"a real vLLM is needed: set {' and '.join(missing)}")
    models = Path(os.environ["PENSTOCK_TEST_MODELS"])
    project = tmp_path_factory.mktemp("project")
    shutil.copy(ROOT / "Pulumi.yaml", project)
    model = {
        "name": "tiny",
        "source": str(models / "tiny-llama"),
        "maxModelLen": 2048,
        "replicas": 2,
        "replicaSets": [{"name": "a"}],
        "adapters": [{"name": name, "source": str(models / name)} for name in ("lora-a", "lora-b")],
        "extraArgs": SMALL,
    }
    config = {"image": "example/services:1", "vllmImage": "example/vllm:1", "models": [model]}
    settings = {"config": {f"penstock:{key}": value for key, value in config.items()}}
    (project / "Pulumi.local.yaml").write_text(yaml.safe_dump(settings))
    patch = pytest.MonkeyPatch()
    patch.setattr(local, "START_S", 500.0)
    offline = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    with running_stack(tmp_path_factory.mktemp("state"), "--engine", "vllm", env=offline, root=project) as stack:
        yield stack
    patch.undo()


@pytest.fixture
def client(vllm: Stack) -> OpenAI:
    return OpenAI(base_url=vllm.endpoint, api_key=vllm.api_key, max_retries=0)


@pytest.mark.parametrize("model", ["tiny", "lora-a", "lora-b"])
def test_model_and_adapters_answer(client: OpenAI, model: str) -> None:
    messages = [{"role": "user", "content": "hello"}]
    answer = client.chat.completions.create(model=model, messages=messages, max_tokens=8)
    assert answer.model == model
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8


def test_streams_with_usage(client: OpenAI) -> None:
    chunks = list(
        client.completions.create(
            model="tiny", prompt="hello", max_tokens=6, stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 6


def test_vllms_own_errors_pass(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="max_model_len=2048"):
        client.completions.create(model="tiny", prompt="hello", max_tokens=5000)


def test_a_repeated_prompt_is_found_in_a_prefix_cache(client: OpenAI, vllm: Stack) -> None:
    for _ in range(4):
        client.completions.create(model="tiny", prompt="the quick brown fox " * 60, max_tokens=2)
    assert sum(_hits(piece["address"]) for piece in vllm.of_kind("replica")) > 0


def _hits(address: str) -> float:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as page:
        lines = page.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("vllm:prefix_cache_hits_total{"))
