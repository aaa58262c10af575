"""What the component renders, the service reads."""

from penstock.manifests.body_router import config

from services.bodyrouter.settings import Settings
from services.extproc.config import parse_config


def test_the_rendered_config_is_read_in_full() -> None:
    text = config(
        {
            "namespace": "inference",
            "image": "registry.test/penstock:1",
            "models": [{"name": "llama-3.1-8b"}, {"name": "gemma-3-12b", "adapters": ["LoRA-1-gemma", "LoRA-2-gemma"]}],
            "max_body_bytes": 4096,
            "allow_client_headers": ["x-slo-ttft-ms"],
        }
    )
    settings = parse_config(text, Settings)
    assert [(m.name, m.adapters) for m in settings.models] == [
        ("llama-3.1-8b", []),
        ("gemma-3-12b", ["LoRA-1-gemma", "LoRA-2-gemma"]),
    ]
    assert (settings.max_body_bytes, settings.allow_client_headers) == (4096, ["x-slo-ttft-ms"])


def test_the_components_defaults_are_read() -> None:
    text = config({"namespace": "inference", "image": "registry.test/penstock:1", "models": [{"name": "m"}]})
    assert parse_config(text, Settings) == Settings.model_validate({"models": [{"name": "m"}]})
