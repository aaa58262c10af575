"""Chains: which policies a product's requests pass, in which order, compiled before any request comes.

The chain of all products is the config's `policies`, in its order; a product's `policies` replace those of the same
name, or join. What runs by default (`ALWAYS`, `USUALLY`) and is not listed joins at its place in `ORDER`; `mode: off`
takes a policy out, except those of `ALWAYS`.
"""

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from services.apimgmt import kvm
from services.apimgmt.accounting import until
from services.apimgmt.call import Call
from services.apimgmt.conditions import compile_condition
from services.apimgmt.domain import PolicyUse, Product
from services.apimgmt.instances import Instances
from services.apimgmt.metrics import Metrics
from services.apimgmt.policies import REGISTRY
from services.apimgmt.policies.access import AccessPolicy
from services.apimgmt.policies.api import Policy, Stage, Tools
from services.apimgmt.step import Step
from services.extproc.api import Reply
from services.extproc.config import ConfigError, Problem, problems_of

ORDER = (
    *("credentials", "access", "validation", "prompt-limit", "spike-arrest", "limits"),
    *("external", "script", "cache"),
)
"""Where policies stand in a chain that does not say otherwise."""

ALWAYS = ("credentials", "access")
"""First in every chain; nobody may take them out, make them conditional, or set them for a single product: which
product it is they find out."""

USUALLY = ("validation", "limits")
"""In every chain that does not take them out: they need no settings."""

RETIRE_S = 30.0
"""How long a policy that left the chains may still be at work for a request, seconds: longer than any hook may take."""

COMPILE_S = 2.0
"""How long a request waits for the chain of a product that was just made, seconds."""

COUNTING = ("spike-arrest", "limits")

SEVERAL = ("external", "script")
"""May stand in a chain more than once."""

_PATH = re.compile(r"[\w.\[\]-]{1,120}")


@dataclass(frozen=True, slots=True)
class Compiled:
    """The chain of one product, after `credentials` and `access`."""

    headers: tuple[Step, ...]
    body: tuple[Step, ...]
    counting: tuple[Step, ...]
    """Steps that say what is charged: asked again where a policy changed the body."""
    responders: tuple[Policy[Any], ...]
    """Policies that want `on_response`."""
    enders: tuple[Policy[Any], ...]
    """Policies that want `on_done`."""


def merged(policies: Sequence[PolicyUse], product: Sequence[PolicyUse] = ()) -> list[PolicyUse]:
    """Return the whole chain in order, `credentials` and `access` included, without what is off."""
    chain = [use for use in policies if use.policy not in ALWAYS]
    for name in dict.fromkeys(use.policy for use in product):
        own = [use for use in product if use.policy == name]
        places = [i for i, use in enumerate(chain) if use.policy == name]
        chain = [use for use in chain if use.policy != name]
        place = places[0] if places else _place(chain, name)
        chain[place:place] = own
    for name in USUALLY:
        if name in REGISTRY and all(use.policy != name for use in chain):
            chain.insert(_place(chain, name), PolicyUse(policy=name))
    head = [next((u for u in policies if u.policy == name), PolicyUse(policy=name)) for name in ALWAYS]
    return [use for use in (*(h for h in head if h.policy in REGISTRY), *chain) if use.mode != "off"]


def compile_chain(uses: Iterable[PolicyUse], metrics: Metrics, instances: Instances) -> list[Step]:
    """Make the steps of a chain. Policies with equal settings are shared through `instances`.

    Raises:
        ValidationError, ValueError, KeyError: what cannot work; `problems` finds it before.
    """
    steps = []
    for use in uses:
        policy = instances.get(use)
        condition = compile_condition(use.when) if use.when is not None else None
        steps.append(Step(policy, metrics.tally(use.policy), condition, shadow=use.mode == "shadow"))
    return steps


def compiled(steps: Sequence[Step]) -> Compiled:
    """Sort the steps of a product's chain by what they are called for."""
    own = [step for step in steps if step.policy.name not in ALWAYS]
    policies = tuple(dict.fromkeys(step.policy for step in steps))
    return Compiled(
        tuple(step for step in own if step.policy.stage is Stage.HEADERS),
        tuple(step for step in own if step.policy.stage is Stage.BODY),
        tuple(step for step in own if step.policy.name in COUNTING),
        tuple(policy for policy in policies if type(policy).on_response is not Policy.on_response),
        tuple(policy for policy in policies if type(policy).on_done is not Policy.on_done),
    )


def problems(
    policies: Sequence[PolicyUse], tools: Tools | None, product: Product | None = None, path: str = ""
) -> list[Problem]:
    """Return everything that keeps a chain from being compiled.

    Args:
        policies: of the config.
        tools: as policies get them; nothing is started. None before there are any: the settings' shape is looked at.
        product: looks at its changes instead of `policies`.
        path: what the problems' paths begin with, e.g. `products[2].`.
    """
    uses = policies if product is None else product.policies
    found: list[Problem] = []
    seen: set[str] = set()
    instances = None if tools is None else Instances(REGISTRY, tools)
    for i, use in enumerate(uses):
        where = f"{path}policies[{i}]"
        cls = REGISTRY.get(use.policy)
        if cls is None:
            known = ", ".join(name for name in REGISTRY if product is None or name not in ALWAYS)
            found.append(Problem(f"{where}.policy", use.policy, "unknown policy", f"known: {known}"))
            continue
        if use.policy in seen and use.policy not in SEVERAL:
            found.append(Problem(f"{where}.policy", use.policy, "the policy is listed twice", "keep one of the two"))
        seen.add(use.policy)
        found += _fixed(use, where, product) if use.policy in ALWAYS else []
        found += _settings_problems(use, cls, where, instances)
        found += _condition_problems(use, where)
    return found


def _fixed(use: PolicyUse, where: str, product: Product | None) -> list[Problem]:
    if product is not None:
        text = f"{use.policy} finds out which product a request belongs to, so it is the same for all"
        return [Problem(f"{where}.policy", use.policy, text, "set it in the policies of the config")]
    if use.mode != "enforce" or use.when is not None:
        return [Problem(where, use.policy, "is always enforced, without a condition", "take out mode and when")]
    return []


def _settings_problems(
    use: PolicyUse, cls: type[Policy[Any]], where: str, instances: Instances | None
) -> list[Problem]:
    try:
        if instances is not None:
            instances.get(use)
        elif not kvm.references(use.settings):
            cls.settings_model.model_validate(use.settings)
    except ValidationError as error:
        return [
            Problem(f"{where}.settings{'.' if p.path else ''}{p.path}", p.value, p.expected, p.fix)
            for p in problems_of(cls.settings_model, error)
        ]
    except ConfigError as error:
        return [Problem(f"{where}.settings.{p.path}".rstrip("."), p.value, p.expected, p.fix) for p in error.problems]
    except ValueError as error:
        return [_told(line, f"{where}.settings") for line in str(error).splitlines()]
    return []


def _told(line: str, where: str) -> Problem:
    """Read `path: text`, or a text alone."""
    path, colon, text = line.partition(": ")
    if colon and _PATH.fullmatch(path):
        return Problem(f"{where}.{path}", "", text, "correct the settings")
    return Problem(where, "", line, "correct the settings")


def _condition_problems(use: PolicyUse, where: str) -> list[Problem]:
    if use.when is None:
        return []
    try:
        compile_condition(use.when)
    except ValueError as error:
        return [Problem(f"{where}.when", use.when, str(error), "correct the condition")]
    return []


def _place(chain: Sequence[PolicyUse], name: str) -> int:
    """Return where a policy joins: after the last one that stands before it by default."""
    rank = _rank(name)
    return max((i + 1 for i, use in enumerate(chain) if _rank(use.policy) < rank), default=0)


def _rank(name: str) -> int:
    return ORDER.index(name) if name in ORDER else len(ORDER)


class Chains:
    """The chains in use, and the policies that run in them. Rebuilt when config or products change."""

    def __init__(self, tools: Tools, metrics: Metrics) -> None:
        self._tools, self._metrics = tools, metrics
        self._instances = Instances(REGISTRY, tools)
        self._changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the chains change."""
        self._retired: set[Policy[Any]] = set()
        self.head: tuple[Step, ...] = ()
        """`credentials` and `access`: a caller's product is known after them."""
        self.products: Mapping[str, Compiled] = {}
        """By the product's name."""
        self.broken: Mapping[str, str] = {}
        """Products whose chains cannot be compiled (written by another version), with the reason."""

    def of(self, call: Call) -> Compiled | None:
        """Return the chain of the call's product; None if it has none, or its chain is not compiled."""
        product = call.product
        return None if product is None else self.products.get(product.name)

    def recheck(self, call: Call) -> Reply | None:
        """Let `access` look at the body's model, where no header named one."""
        for step in self.head:
            if isinstance(step.policy, AccessPolicy):
                answer = step.policy.recheck(call)
                return step.judge(call, answer) if isinstance(answer, Reply) else None
        return None

    async def use(self, policies: Sequence[PolicyUse], products: Iterable[Product]) -> None:
        """Compile all chains, start what is new, put them to use, then stop what nobody uses any more."""
        made = Instances(REGISTRY, self._tools, self._instances)
        whole = compile_chain(merged(policies), self._metrics, made)
        chains: dict[str, Compiled] = {}
        broken: dict[str, str] = {}
        for product in products:
            try:
                uses = merged(policies, product.policies)
                chains[product.name] = compiled(compile_chain(uses, self._metrics, made))
            except (ValueError, KeyError) as error:
                broken[product.name] = type(error).__name__ if isinstance(error, KeyError) else str(error)
        before, after = self._instances.policies, made.policies
        for policy in after:
            if policy not in before:
                await policy.start()
        self._instances = made
        self.head = tuple(step for step in whole if step.policy.name in ALWAYS)
        self.products, self.broken = chains, broken
        changed, self._changed = self._changed, asyncio.get_running_loop().create_future()
        changed.set_result(None)
        for policy in before:
            if policy not in after:
                self._retired.add(policy)
                self._tools.background(self._retire(policy))

    async def wait_for(self, name: str) -> Compiled | None:
        """Return the chain of a product that is not compiled yet; None if it cannot be."""
        deadline = asyncio.get_running_loop().time() + COMPILE_S
        while name not in self.products and name not in self.broken:
            changed = self._changed
            if not await until(changed, deadline - asyncio.get_running_loop().time()):
                break
        return self.products.get(name)

    async def stop(self) -> None:
        """Stop all policies."""
        for policy in (*self._instances.policies, *self._retired):
            await policy.stop()

    async def _retire(self, policy: Policy[Any]) -> None:
        """Stop a policy when the requests that began with it have passed it."""
        await asyncio.sleep(RETIRE_S)
        self._retired.discard(policy)
        await policy.stop()
