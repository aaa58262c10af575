"""The operations that clients may call. Everything else that a model server exposes stays private.

The list is closed on purpose: vLLM also serves adapter management (`/v1/load_lora_adapter`), `/metrics`, `/tokenize`,
`/invocations` and more, and a policy behind this router can only screen what it knows.
"""

from dataclasses import dataclass

MODELS = "models"
MODELS_PATH = "/v1/models"

ROUTED = {
    "/v1/chat/completions": "chat_completions",
    "/v1/completions": "completions",
    "/v1/embeddings": "embeddings",
    "/v1/responses": "responses",
    "/v1/rerank": "rerank",
    "/v1/score": "score",
}
"""POST operations with a JSON body and a `model` -> label in metrics. The first four are OpenAI's, the rest vLLM's."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What a request line asks for."""

    label: str
    """Name in metrics."""
    method: str
    """The one method that is allowed."""
    model_id: str = ""
    """`GET /v1/models/{id}`: the id, as it stands in the path."""


_ROUTED = {path: Operation(label, "POST") for path, label in ROUTED.items()}
_LIST = Operation(MODELS, "GET")


def find(target: str) -> Operation | None:
    """Return the operation of a request target (`:path`, query included), None if there is none.

    Paths are compared as they are: no decoding, no dots, no doubled or trailing slashes (but for the model list, which
    is answered here), so that nothing reaches a server by another spelling.
    """
    path = target.partition("?")[0]
    operation = _ROUTED.get(path)
    if operation is not None:
        return operation
    if path.rstrip("/") == MODELS_PATH:
        return _LIST
    if path.startswith(MODELS_PATH + "/"):
        return Operation(MODELS, "GET", path[len(MODELS_PATH) + 1 :])
    return None
