"""What a request may use: read from its body, before it is reserved. See docs/usage.md.

Numbers and flags are read as the model server reads them (pydantic's lax mode: `"64"`, `64.0` and `true` are accepted),
so that nothing is asked of it that was not reserved. What it cannot read it refuses, and is absent here.
"""

from services.apimgmt.call import Call
from services.apimgmt.usage.estimator import Estimator
from services.apimgmt.usage.prompt import Prompt, measure
from services.apimgmt.usage.tokens import MAX_TOKENS, Tokens
from services.bodyrouter.operations import ROUTED
from services.extproc.api import Reply, deny

STATE = "usage"
"""Key of the measured prompt in `call.state`."""

DEFAULT_COMPLETION = 16
"""`max_tokens` of a completions request that does not name it. Source: OpenAI API reference, "Completions"."""

_LIMITS = {
    "chat_completions": ("max_completion_tokens", "max_tokens"),
    "completions": ("max_tokens",),
    "responses": ("max_output_tokens",),
}
"""Operations that generate -> fields for the longest answer. The last one is written where none is set."""

MAX_DIGITS = 4300
"""Longest text that the model server (pydantic 2) reads as a number: leading zeros do not make it another one."""

_TRUE = frozenset({"true", "t", "1", "on", "yes", "y"})


def prepare(call: Call, estimator: Estimator) -> Reply | None:
    """Set `stream`, `prompt_tokens`, `max_output` and `strip_usage` of a call; edit its body where needed.

    Returns a denial (400, `max_tokens_too_large`) for a request that asks for more than its product allows.
    """
    operation = ROUTED.get(call.operation, "")
    prompt = measure(operation, call.body, len(call.exchange.request_body))
    call.state[STATE] = prompt
    fixed = prompt.fixed + prompt.media * estimator.media_tokens
    call.prompt_tokens = min(estimator.upper(tokenizer_of(call), prompt.size) + fixed, MAX_TOKENS)
    fields = _LIMITS.get(operation)
    if fields is None:
        return None
    call.stream = _flag(call.body.get("stream"))
    refusal = _bound_output(call, operation, fields, prompt, estimator)
    if refusal is None and call.stream and operation != "responses":
        _ask_for_usage(call)
    return refusal


def tokenizer_of(call: Call) -> str:
    """Return the model whose tokenizer counts: the base model of an adapter."""
    return call.base_model or call.model


def generates(call: Call) -> bool:
    """Whether the operation makes text, so that its answer has completion tokens."""
    return ROUTED.get(call.operation) in _LIMITS


def unanswered(call: Call, estimator: Estimator) -> Tokens:
    """Estimate what was used by a request of which no answer was seen: its prompt."""
    prompt = call.state.get(STATE)
    if not isinstance(prompt, Prompt):
        return Tokens(call.prompt_tokens, estimated=True)
    fixed = prompt.fixed + prompt.media * estimator.media_tokens
    return Tokens(min(estimator.mean(tokenizer_of(call), prompt.size) + fixed, MAX_TOKENS), estimated=True)


def _bound_output(
    call: Call, operation: str, fields: tuple[str, ...], prompt: Prompt, estimator: Estimator
) -> Reply | None:
    """Set `max_output`, and write the product's cap into a body that sets none."""
    body = call.body
    cap = call.product.product.max_output_tokens if call.product else None
    asked = {name: body[name] for name in fields if body.get(name) is not None}
    most, least = 0, 0 if operation == "completions" else 1
    for name, given in asked.items():
        value = _whole(given)
        if value is None:
            if cap is None:
                continue
            text = f"{name} cannot be read; expected a whole number of at most {cap}."
            return deny(400, text, param=name, code="invalid_value")
        if value < least or (cap is not None and value > cap):
            return _refuse(name, value, least, cap)
        most = max(most, value)
    if not asked and operation == "completions" and fields[-1] not in body:
        most = DEFAULT_COMPLETION if cap is None else min(cap, DEFAULT_COMPLETION)
        if most < DEFAULT_COMPLETION:
            call.edit()[fields[-1]] = most
    elif not asked and cap is not None:
        most = cap
        call.edit()[fields[-1]] = cap
    answers = prompt.count
    if "n" in body or "best_of" in body:
        answers *= max(_whole(body.get("n")) or 1, _whole(body.get("best_of")) or 1, 1)
    prompt.bound = most > 0
    call.max_output = min((most or cap or estimator.output_tokens) * answers, MAX_TOKENS)
    return None


def _refuse(name: str, value: int, least: int, cap: int | None) -> Reply:
    if value < least or cap is None:
        return deny(400, f"{name} is {value}; expected at least {least}.", param=name, code="invalid_value")
    return deny(
        400,
        f"{name} is {value}, and this product allows at most {cap}. Ask for {cap} or fewer.",
        param=name,
        code="max_tokens_too_large",
    )


def _ask_for_usage(call: Call) -> None:
    """Have the stream end with its usage; remember to take it out again if the client did not ask."""
    options = call.body.get("stream_options")
    if options is None:
        options = {}
    if not isinstance(options, dict) or _flag(options.get("include_usage")):
        return
    # Running usage has no effect for a client that did not ask for usage; it would get one by our asking.
    kept = {name: value for name, value in options.items() if name != "continuous_usage_stats"}
    call.edit()["stream_options"] = {**kept, "include_usage": True}
    call.strip_usage = True


def _flag(value: object) -> bool:
    if isinstance(value, str):
        return value.lower() in _TRUE
    return value is True or (isinstance(value, int | float) and value == 1)


def _whole(value: object) -> int | None:
    """Return a number as the model server would read it, None for what it refuses."""
    if type(value) is int:
        return value
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str) and len(value) <= MAX_DIGITS:
        try:
            return _whole(float(value)) if "." in value else int(value)
        except (ValueError, OverflowError):
            return None
    return None
