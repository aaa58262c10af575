"""The endpoint picker protocol as a filter: body in, header and metadata out.

Source: Gateway API Inference Extension, proposal 004 "Endpoint Picker Protocol" v1.0; header names of llm-d-router
v0.10 first, the older ones as fallback.
"""

import time
from collections.abc import Mapping, Sequence

from services.extproc.api import Answer, BodyMode, Exchange, Filter, FilterStream, Outcome, Reply, deny
from services.picker import observe
from services.picker.config import PrefixParameters
from services.picker.pool import Pool, Replica
from services.picker.prefix import PrefixIndex, block_hashes
from services.picker.prompt import prompt_bytes, seed
from services.picker.scheduler import Decision, Request, Scheduler

DESTINATION = "x-gateway-destination-endpoint"
"""Header, and key in the dynamic metadata of `LB`: the picks as `ip:port[,ip:port...]`."""
LB = "envoy.lb"
SERVED = "x-gateway-destination-endpoint-served"
"""Key in the metadata `LB` of the response: the endpoint that answered."""
SUBSET_NAMESPACE, SUBSET = "envoy.lb.subset_hint", "x-gateway-destination-endpoint-subset"
"""Metadata of the request: the endpoints that may be picked."""
OBJECTIVE_HEADER, OLD_OBJECTIVE_HEADER = "x-llm-d-inference-objective", "x-gateway-inference-objective"
MODEL_HEADER, BASE_MODEL_HEADER = "x-gateway-model-name", "x-gateway-base-model-name"
DROPPED_REASON = "x-llm-d-request-dropped-reason"
SATURATED, NO_ENDPOINTS = "rejected-saturated", "rejected-no-endpoints"
RETRY_AFTER_S = 1
"""What a shed client is told to wait: queues change within seconds."""


class PickerFilter(Filter):
    """Picks the replicas of one pool."""

    name = "picker"
    request_body = BodyMode.WHOLE

    def __init__(
        self,
        pool: Pool,
        index: PrefixIndex,
        scheduler: Scheduler,
        prefix: PrefixParameters,
        objectives: Mapping[str, int],
    ) -> None:
        self.pool, self.index, self.scheduler = pool, index, scheduler
        self._objectives = objectives
        self._block_bytes, self._max_blocks = prefix.block_bytes, prefix.max_blocks

    def open(self, exchange: Exchange) -> "PickerStream":
        """Return the stream of one exchange."""
        return PickerStream(self, exchange)

    def read(self, exchange: Exchange) -> Request:
        """Read what scheduling needs. A body that is no JSON object has no prompt and no model: any replica will do."""
        headers = exchange.request_headers
        body = _json_object(exchange)
        model, base = headers.get(MODEL_HEADER), headers.get(BASE_MODEL_HEADER)
        named = body.get("model")
        adapter = model if base and base != model else ""
        if not model and isinstance(named, str):  # no body router in front: which models are adapters is not known
            model = adapter = named
        prompt = prompt_bytes(body)
        hashes = block_hashes(prompt, seed(model, body), self._block_bytes, self._max_blocks) if prompt else ()
        objective = headers.get(OBJECTIVE_HEADER) or headers.get(OLD_OBJECTIVE_HEADER)
        return Request(hashes, adapter, self._objectives.get(objective, 0), subset_hint(exchange.metadata))


class PickerStream(FilterStream):
    """One exchange: the pick, and the books kept on it."""

    __slots__ = ("_added", "_exchange", "_filter", "_hashes", "_replica")

    def __init__(self, owner: PickerFilter, exchange: Exchange) -> None:
        self._filter, self._exchange = owner, exchange
        self._replica: Replica | None = None
        self._hashes: Sequence[int] = ()
        self._added: Sequence[int] = ()

    def on_request_body(self) -> Answer:
        """Pick."""
        started = time.perf_counter()
        exchange, owner = self._exchange, self._filter
        request = owner.read(exchange)
        decision = owner.scheduler.decide(request)
        if not decision.replicas:
            return _refuse(decision, request)
        picks = ",".join([replica.endpoint for replica in decision.replicas])
        exchange.request_changes.set[DESTINATION] = picks
        exchange.dynamic_metadata.setdefault(LB, {})[DESTINATION] = picks
        self._hashes = request.hashes
        self._take(decision.replicas[0])
        seconds = time.perf_counter() - started
        observe.picked(decision.replicas[0], decision.matched, len(request.hashes), seconds)
        return None

    def on_response_headers(self) -> Answer:
        """Correct the books where another replica answered, or where the prompt was not processed."""
        values = self._exchange.metadata.get(LB)
        served = values.get(SERVED) if values else None
        if isinstance(served, str) and self._replica is not None and served != self._replica.endpoint:
            observe.SERVED_ELSEWHERE.inc()
            self._forget()
            self._release()
            replica = self._filter.pool.by_endpoint.get(served)
            if replica is not None:
                self._take(replica)
        if self._exchange.response_headers.get(":status") >= "400":
            self._forget()
        return None

    def on_end(self, outcome: Outcome) -> None:
        """The request no longer burdens its replica."""
        self._release()

    def _take(self, replica: Replica) -> None:
        self._replica = replica
        self._filter.pool.sent(replica)
        self._added = self._filter.index.record(replica.slot, self._hashes) if self._hashes else ()

    def _release(self) -> None:
        if self._replica is not None:
            self._filter.pool.ended(self._replica)
            self._replica = None

    def _forget(self) -> None:
        replica = self._replica
        if replica is not None and self._added and self._filter.pool.has(replica):
            self._filter.index.forget(replica.slot, self._added)
        self._added = ()


def subset_hint(metadata: Mapping[str, Mapping[str, object]]) -> frozenset[str] | None:
    """Return the endpoints that may be picked: a list, or one text with commas. None where there is no hint."""
    values = metadata.get(SUBSET_NAMESPACE)
    if not values or SUBSET not in values:
        return None
    hint = values[SUBSET]
    parts = hint.split(",") if isinstance(hint, str) else hint if isinstance(hint, list | tuple) else ()
    return frozenset(part.strip() for part in parts if isinstance(part, str) and part.strip())


def _json_object(exchange: Exchange) -> Mapping[str, object]:
    if not exchange.request_body:
        return {}
    try:
        parsed = exchange.request_json()
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _refuse(decision: Decision, request: Request) -> Reply:
    if decision.shed:
        observe.REFUSALS.labels("saturated").inc()
        return deny(
            429,
            f"All replicas of the model are busy and requests of priority {request.priority} are shed. Retry later.",
            type="rate_limit_error",
            code="pool_saturated",
            headers={"retry-after": str(RETRY_AFTER_S), DROPPED_REASON: SATURATED},
        )
    observe.REFUSALS.labels("no_endpoints").inc()
    which = "No replica of the model is ready" if request.subset is None else "None of the hinted replicas is ready"
    return deny(
        503,
        f"{which}. Retry later.",
        type="server_error",
        code="no_ready_replica",
        headers={DROPPED_REASON: NO_ENDPOINTS},
    )
