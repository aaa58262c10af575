"""Several models behind a Gateway that exists: components are classes, so a loop declares them."""

import penstock
import pulumi

NAMESPACE = "inference"
MODELS = {
    "llama-3.1-8b": "meta-llama/Llama-3.1-8B-Instruct",
    "gemma-3-4b": "google/gemma-3-4b-it",
}

for model, source in MODELS.items():
    name = penstock.slug(model)
    penstock.ModelReplicaSet(
        name,
        {
            "name": name,
            "namespace": NAMESPACE,
            "model": model,
            "source": source,
            "replicas": 2,
            "image": "vllm/vllm-openai:v0.32.0",
        },
    )
    pool = penstock.InferencePool(
        name, {"name": name, "namespace": NAMESPACE, "picker": {"image": "penstock/services:0.1.0"}}
    )
    penstock.ModelRoute(
        name,
        {"model": model, "namespace": NAMESPACE, "gateway": "inference-gateway", "pools": [{"name": name}]},
        pulumi.ResourceOptions(depends_on=[pool]),
    )

pulumi.export("models", list(MODELS))
