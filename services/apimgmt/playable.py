"""What of a configuration a recording can be played against: everything that needs what was not recorded is taken out.

That is `cache` (its answers were not recorded); `external`, unless services shall be asked; and without bodies also
`validation`, and policies that read the body, by their settings or by their condition.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from services.apimgmt.conditions import compile_condition
from services.apimgmt.domain import PolicyUse, Product

NOT_RECORDED = frozenset({"body", "request.headers"})
"""Variables of conditions that a recording without bodies lacks."""


@dataclass(frozen=True, slots=True)
class Left:
    """A policy that is not evaluated."""

    policy: str
    where: str
    """Path in the configuration; `default` for one that is not listed there."""
    reason: str


class Playable:
    """Takes policies out of chains, and remembers which."""

    def __init__(self, *, bodies: bool, call_external: bool) -> None:
        """`bodies`: the recording has them; `call_external`: services may be asked."""
        self._bodies, self._call_external = bodies, call_external
        self.left: list[Left] = []

    def policies(self, uses: Sequence[PolicyUse]) -> list[PolicyUse]:
        """Return the chain of all products."""
        found = self._taken(uses, "policies")
        # issuers of tokens would be asked for their keys
        found = [PolicyUse(policy=u.policy) if u.policy == "credentials" else u for u in found]
        if not self._bodies and all(use.policy != "validation" for use in found):
            found.append(PolicyUse(policy="validation", mode="off"))
            self.left.append(Left("validation", "default", "needs bodies"))
        return found

    def product(self, product: Product) -> Product:
        """Return a product with its changes to the chain."""
        policies = self._taken(product.policies, f"product {product.name}: policies")
        return product.model_copy(update={"policies": policies})

    def _taken(self, uses: Sequence[PolicyUse], path: str) -> list[PolicyUse]:
        """Turn off what cannot be played: taken out, it would let the chain's default come back."""
        found = []
        for i, use in enumerate(uses):
            reason = next(self._reasons(use), "") if use.mode != "off" else ""
            if reason:
                self.left.append(Left(use.policy, f"{path}[{i}]", reason))
            found.append(PolicyUse(policy=use.policy, mode="off") if reason else use)
        return found

    def _reasons(self, use: PolicyUse) -> Iterator[str]:
        if use.policy == "cache":
            yield "needs answers"
        if use.policy == "external" and not self._call_external:
            yield "external services are not asked"
        if self._bodies:
            return
        if use.policy == "validation":
            yield "needs bodies"
        if use.policy == "script" and use.settings.get("body", True):
            yield "the script reads the body"
        if use.policy == "external" and use.settings.get("send") == "body":
            yield "the service reads the body"
        if use.when is not None and compile_condition(use.when).paths & NOT_RECORDED:
            yield "its condition needs what is recorded with bodies only"
