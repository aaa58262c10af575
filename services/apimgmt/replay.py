"""Replay: recorded requests through the chain of another configuration, at the times at which they came.

The real pipeline, policies, limits and accounting run, over a store of their own and a clock that follows the
recording. Answers are played too: they end when they ended, and use what they used, so that limits of all kinds see the
same load. What a recording cannot tell is left out by name (`Run.not_evaluated`).

An answer that was not recorded, since the request was refused then, is taken to last no time and to use the expected
prompt and as many tokens as the mean of the recorded answers of its model.
"""

import asyncio
import heapq
import secrets
import tempfile
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from prometheus_client import CollectorRegistry

from services.apimgmt import chain, declared
from services.apimgmt.accounting import Accounting
from services.apimgmt.binding import Binder
from services.apimgmt.call import Call, Credential, Verdict
from services.apimgmt.chain import Chains
from services.apimgmt.directory import Directory
from services.apimgmt.domain import PolicyUse, Product
from services.apimgmt.errors import Refusal
from services.apimgmt.metrics import Metrics
from services.apimgmt.pipeline import ApiManagement, ApiManagementStream
from services.apimgmt.playable import Left, Playable
from services.apimgmt.played import answer_of, exchange_of, mean_answers
from services.apimgmt.policies.api import Policy, Stage, Tools
from services.apimgmt.recording import Recorded
from services.apimgmt.settings import Settings, SqliteStore
from services.apimgmt.step import Step
from services.apimgmt.store import open_store, portable
from services.apimgmt.store.api import Store
from services.apimgmt.usage.estimator import Estimator
from services.extproc.api import Answer, Ending, Exchange, Headers, Outcome, Reply
from services.extproc.config import ConfigError, ConfigModel, Problem

LEASE_S = 600
"""Nothing renews or sweeps in a replay."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of a request."""

    verdict: str
    """`pass`, `deny` or `unknown` (its caller is none in this configuration)."""
    policy: str = ""
    code: str = ""
    shadow: tuple[tuple[str, str], ...] = ()
    """Policy and code of denials in shadow mode."""


@dataclass(slots=True)
class Run:
    """The decisions on a recording, in its order."""

    decisions: list[Decision] = field(default_factory=list)
    not_evaluated: list[Left] = field(default_factory=list)


class _Clock:
    """Stands where the recording is."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class _Nothing(ConfigModel):
    pass


class _Recorded(Policy[_Nothing]):
    """Stands for `credentials`: a recording has none."""

    name: ClassVar[str] = "credentials"
    stage: ClassVar[Stage] = Stage.HEADERS
    settings_model = _Nothing
    binder: Binder
    request: Recorded

    def check(self, call: Call) -> Answer:
        recorded = self.request
        app = self.binder.snapshot.apps.get((recorded.organization, recorded.app))
        if app is None:
            return Refusal(401, UNKNOWN, "The app is none of this configuration.").reply()
        user = "" if recorded.user == app.developer else recorded.user
        caller = self.binder.caller(app, Credential(recorded.credential), key=recorded.key, user=user)
        if isinstance(caller, Refusal):
            return caller.reply()
        call.caller, call.agent = caller, recorded.agent
        return None


UNKNOWN = "unknown_app"


class _Stream(ApiManagementStream):
    """Reads what the recording tells where there is no body."""

    __slots__ = ("recorded",)

    def __init__(self, owner: ApiManagement, exchange: Exchange, recorded: Recorded) -> None:
        super().__init__(owner, exchange)
        self.recorded = recorded

    def _prepare(self) -> Reply | None:
        if self.recorded.body is not None:
            return super()._prepare()
        call = self._call
        call.stream = self.recorded.stream
        call.prompt_tokens, call.max_output = self.recorded.expected_prompt_tokens, self.recorded.max_output
        return None

    @property
    def call(self) -> Call:
        """The call of this exchange."""
        return self._call


async def replay(
    settings: Settings,
    requests: Sequence[Recorded],
    *,
    bodies: bool,
    call_external: bool = False,
    documents: Iterable[str] = (),
) -> Run:
    """Play `requests`, in the order of their times, against `settings`.

    Args:
        settings: the configuration; its store is not touched.
        requests: what was recorded.
        bodies: whether the requests have their bodies.
        call_external: asks external services, which see requests of the past then.
        documents: lines of an export of a store, for what the configuration does not declare.

    Raises:
        ConfigError: the configuration cannot be used. StoreError: the export cannot.
    """
    problems = chain.problems(settings.policies, None)
    for i, product in enumerate(settings.products):
        problems += chain.problems(settings.policies, None, product, f"products[{i}].")
    if problems:
        raise ConfigError("config", problems)
    playable = Playable(bodies=bodies, call_external=call_external)
    with tempfile.TemporaryDirectory(prefix="penstock-replay-") as folder:
        store = open_store(SqliteStore(kind="sqlite", path=str(Path(folder) / "store.db")), {})
        await store.open()
        try:
            if documents:
                await portable.import_(store, documents)
            decisions = await _Player(settings, store, playable).play(requests)
        finally:
            await store.close()
    return Run(decisions, playable.left)


class _Player:
    """One run over one store."""

    def __init__(self, settings: Settings, store: Store, playable: Playable) -> None:
        self._settings, self._store, self._playable, self._clock = settings, store, playable, _Clock()

    async def play(self, requests: Sequence[Recorded]) -> list[Decision]:
        """Return the decisions."""
        self._clock.now = requests[0].time if requests else 0.0
        await declared.apply(self._store, self._settings, int(self._clock.now))
        directory = Directory(self._store, secrets.token_bytes(32), self._clock)
        estimator = Estimator(self._settings.estimation)
        tools = Tools(self._store, lambda name, key: None, _never, {"directory": directory, "estimator": estimator})
        tools.extras["clock"] = self._clock
        metrics = Metrics(CollectorRegistry())
        accounting = Accounting(self._store, metrics, LEASE_S, self._clock)
        chains = Chains(tools, metrics)
        await directory.start()
        try:
            products = [self._playable.product(product) for product in directory.snapshot.products.values()]
            await _compile(chains, self._playable.policies(self._settings.policies), products)
            who = _Recorded(_Nothing(), tools)
            who.binder = Binder(directory.snapshot)
            own = Step(who, metrics.tally(who.name), None, shadow=False)
            chains.head = (own, *(step for step in chains.head if step.policy.name != who.name))
            self._filter = ApiManagement(chains, accounting, estimator, metrics, clock=self._clock)
            return await self._all(who, requests, mean_answers(requests))
        finally:
            await chains.stop()
            await accounting.stop()
            await directory.stop()

    async def _all(self, who: _Recorded, requests: Sequence[Recorded], means: dict[str, int]) -> list[Decision]:
        decisions: list[Decision] = []
        answering: list[tuple[float, int, _Stream]] = []
        for number, recorded in enumerate(requests):
            while answering and answering[0][0] <= recorded.time:
                await self._end(heapq.heappop(answering), means)
            self._clock.now, who.request = recorded.time, recorded
            stream = _Stream(self._filter, exchange_of(recorded), recorded)
            reply = await _resolved(stream.on_request_headers()) or await _resolved(stream.on_request_body())
            decisions.append(_decision(stream.call, reply))
            if reply is None:
                heapq.heappush(answering, (recorded.time + recorded.latency_ms / 1000, number, stream))
            else:
                stream.on_end(Outcome(Ending.DENIED, reply.status, 0.0, 0, 0))
                await self._settled()
        while answering:
            await self._end(heapq.heappop(answering), means)
        return decisions

    async def _end(self, entry: tuple[float, int, _Stream], means: dict[str, int]) -> None:
        """Play the answer, at once at its end."""
        self._clock.now, _, stream = entry
        recorded, exchange = stream.recorded, stream.call.exchange
        status = recorded.status if recorded.status and recorded.outcome != "refused" else 200
        exchange.response_headers = Headers([(":status", b"%d" % status), ("content-type", b"application/json")])
        await _resolved(stream.on_response_headers())
        sent = stream.on_response_chunk(answer_of(recorded, means), True)
        if isinstance(sent, Awaitable):
            await sent
        stream.on_end(Outcome(Ending.COMPLETE, status, recorded.latency_ms / 1000, 0, 0))
        await self._settled()

    async def _settled(self) -> None:
        """Wait until the books are right for the next request."""
        while self._filter.accounting.pending:  # noqa: ASYNC110 - a few turns of the loop
            await asyncio.sleep(0)


def _decision(call: Call, reply: Reply | None) -> Decision:
    denied = [finding for finding in call.findings if finding.verdict is Verdict.DENY]
    shadow = tuple((finding.policy, finding.code) for finding in denied if finding.shadow)
    if reply is None or reply.status < 400:
        return Decision("pass", shadow=shadow)
    if reply.details == UNKNOWN:
        return Decision("unknown")
    by = next((finding for finding in denied if not finding.shadow), None)
    return Decision("deny", by.policy if by else "", by.code if by else reply.details, shadow)


async def _compile(chains: Chains, policies: Sequence[PolicyUse], products: Sequence[Product]) -> None:
    """Compile the chains. Raises ConfigError for what only shows then: no file has entries of key-value maps."""
    try:
        await chains.use(policies, products)
    except ValueError as error:
        raise ConfigError("config", [Problem("policies", "", str(error), "set the policy to off")]) from None
    if chains.broken:
        problems = [Problem(f"product {name}", "", why, "set the policy to off") for name, why in chains.broken.items()]
        raise ConfigError("config", problems)


async def _resolved(answer: Answer) -> Reply | None:
    return answer if answer is None or isinstance(answer, Reply) else await answer


def _never(work: Awaitable[Any]) -> None:
    raise AssertionError("nothing runs beside a replay")
