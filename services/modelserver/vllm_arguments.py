"""Arguments of `vllm serve` (0.32) that are accepted and have no effect in the simulator."""

VALUES = """
additional-config all2all-backend allowed-headers allowed-local-media-path allowed-media-domains allowed-methods
allowed-origins api-server-count attention-backend attention-config chat-template chat-template-content-format
code-revision compilation-config config config-format convert cp-kv-cache-interleave-size cpu-offload-gb
cudagraph-capture-sizes data-parallel-address data-parallel-backend data-parallel-rank data-parallel-rpc-port
data-parallel-size data-parallel-size-local data-parallel-start-rank dcp-comm-backend decode-context-parallel-size
default-mm-loras device distributed-executor-backend distributed-timeout-seconds download-dir dtype ec-transfer-config
eplb-config expert-placement-strategy generation-config guided-decoding-backend h11-max-header-count
h11-max-incomplete-event-size hf-config-path hf-overrides hf-token io-processor-plugin ir-op-priority kernel-config
kv-cache-dtype kv-cache-layout kv-cache-memory-bytes kv-cache-metrics-sample kv-events-config kv-offloading-backend
kv-offloading-size kv-transfer-config limit-mm-per-prompt load-format log-config-file logits-processors logprobs-mode
long-prefill-token-threshold lora-dtype lora-target-modules mamba-block-size mamba-cache-dtype mamba-cache-mode
mamba-ssm-cache-dtype master-addr master-port max-cpu-loras max-cudagraph-capture-size max-log-len
max-long-partial-prefills max-lora-rank max-num-partial-prefills max-parallel-loading-workers media-io-kwargs
middleware mm-encoder-attn-backend mm-encoder-tp-mode mm-processor-cache-gb mm-processor-cache-type
mm-processor-kwargs mm-shm-cache-max-object-size-mb model-impl model-loader-extra-config moe-backend nnodes node-rank
nsight num-lookahead-slots num-scheduler-steps num-speculative-tokens numa-bind-nodes optimization-level
otlp-traces-endpoint override-attention-dtype override-generation-config performance-mode pipeline-parallel-size
pooler-config preemption-mode prefill-context-parallel-size prefix-caching-hash-algo profiler-config prompt-adapters
pt-load-map-location quantization quantization-config reasoning-config reasoning-parser reasoning-parser-plugin
renderer-num-workers response-role revision root-path rope-scaling rope-theta runner safetensors-load-strategy
scheduler-cls scheduling-policy show-hidden-metrics-for-version shutdown-timeout spec-method spec-model spec-tokens
speculative-config speculative-model ssl-ca-certs ssl-cert-reqs ssl-certfile ssl-ciphers ssl-keyfile stream-interval
structured-outputs-config swap-space task tensor-parallel-size tokenizer tokenizer-mode tokenizer-revision
tool-call-parser tool-parser-plugin tool-server tool-server-url uds uvicorn-log-level weight-transfer-config
worker-cls worker-extension-cls
""".split()
"""Take one value or more. Those of earlier releases are here too, since manifests outlive them."""

SWITCHES = """
aggregate-engine-logging allow-credentials allow-deprecated-quantization async-engine-args async-scheduling
calculate-kv-scales cudagraph-metrics data-parallel-external-lb data-parallel-hybrid-lb
disable-access-log-for-endpoints disable-async-output-proc disable-cascade-attention disable-chunked-mm-input
disable-custom-all-reduce disable-fastapi-docs disable-frontend-multiprocessing disable-hybrid-kv-cache-manager
disable-log-requests disable-log-stats disable-nccl-for-dp-synchronization disable-sliding-window
disable-uvicorn-access-log enable-auto-tool-choice enable-chunked-prefill enable-dbo enable-elastic-ep enable-eplb
enable-expert-parallel enable-flashinfer-autotune enable-force-include-usage enable-layerwise-nvtx-tracing
enable-log-deltas enable-log-outputs enable-log-requests enable-logging-iteration-details enable-lora-bias
enable-mfu-metrics enable-mm-embeds enable-multimodal-encoder-data-parallel enable-offline-docs enable-prompt-embeds
enable-reasoning enable-return-routed-experts enable-server-load-tracking enable-sleep-mode enable-ssl-refresh
enable-tokenizer-info-endpoint enforce-eager exclude-tools-when-tool-choice-none fully-sharded-loras
guided-decoding-disable-any-whitespace guided-decoding-disable-fallback headless interleave-mm-strings
kv-cache-metrics kv-sharing-fast-prefill language-model-only log-error-stack multi-step-stream-outputs numa-bind
ray-workers-use-nsight return-tokens-as-token-ids skip-mm-profiling skip-tokenizer-init specialize-active-lora
tokens-only trust-remote-code trust-request-chat-template use-tqdm-on-load use-v2-block-manager
""".split()
"""Take no value; also as `--no-...`."""

SHORT = {
    "-O": "--optimization-level",
    "-cc": "--compilation-config",
    "-dp": "--data-parallel-size",
    "-pp": "--pipeline-parallel-size",
    "-q": "--quantization",
    "-tp": "--tensor-parallel-size",
}
"""Short forms of the above."""
