"""Model server simulator: one vLLM replica's HTTP API, metrics and queueing behaviour without a model.

`python -m services.modelserver <arguments of vllm serve>`; see docs/simulator.md.
"""
