"""Template rules: what administrators require, allow and forbid of the policies of all products.

- `required`: the product's chain has the policy, enforced, and the product sets no condition of its own for it.
- `allowed`: of policies that config or product list, only these; `credentials` and `access` need no mention.
- `denied`: the chain does not have the policy, not even in shadow mode.

A product that violates a rule is refused when it is saved; the admin API lists what violated before the rule came.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from services.apimgmt.chain import ALWAYS, merged
from services.apimgmt.domain import PolicyUse, Product, TemplateRule
from services.apimgmt.policies import REGISTRY
from services.extproc.config import Problem


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing about a product that a rule does not allow."""

    rule: str
    product: str
    policy: str
    what: str
    fix: str

    def __str__(self) -> str:
        return f"product {self.product}: {self.what} (template rule {self.rule}); {self.fix}"


def violations(rules: Iterable[TemplateRule], policies: Sequence[PolicyUse], product: Product) -> list[Violation]:
    """Return all violations of a product.

    Args:
        rules: all template rules.
        policies: the chain of all products (the config's `policies`).
        product: as it is or would be saved.
    """
    return [violation for rule in rules for violation in _of_rule(rule, policies, product)]


def problems_of_products(
    rules: Iterable[TemplateRule], policies: Sequence[PolicyUse], products: Sequence[Product]
) -> list[Problem]:
    """Return the violations of declared products as problems of the config file."""
    rules = list(rules)
    return [
        Problem(f"products[{i}].policies", v.policy, f"{v.what} (template rule {v.rule})", v.fix)
        for i, product in enumerate(products)
        for v in violations(rules, policies, product)
    ]


def problems_of_rules(rules: Sequence[TemplateRule]) -> list[Problem]:
    """Return what is wrong with declared rules themselves."""
    found = []
    for i, rule in enumerate(rules):
        lists = {"required": rule.required, "allowed": rule.allowed or [], "denied": rule.denied}
        for field, names in lists.items():
            for j, name in enumerate(names):
                if name not in REGISTRY:
                    path = f"templateRules[{i}].{field}[{j}]"
                    found.append(Problem(path, name, "unknown policy", f"known: {', '.join(REGISTRY)}"))
        for name in rule.required:
            path = f"templateRules[{i}].required"
            if name in rule.denied:
                found.append(Problem(path, name, "the policy is also denied", "take it off one of the lists"))
            elif rule.allowed is not None and name not in rule.allowed and name not in ALWAYS:
                found.append(Problem(path, name, "the policy is not among those allowed", "add it to allowed"))
        for name in (name for name in rule.denied if name in ALWAYS):
            text = "the policy is part of every chain"
            found.append(Problem(f"templateRules[{i}].denied", name, text, "take it off the list"))
    return found


def _of_rule(rule: TemplateRule, policies: Sequence[PolicyUse], product: Product) -> Iterator[Violation]:
    chain = merged(policies, product.policies)
    own = {use.policy for use in product.policies if use.mode != "off"}
    listed = own | {use.policy for use in policies}
    present = dict.fromkeys(use.policy for use in chain)
    for name in rule.required:
        reason = _missing(name, chain, product)
        if reason:
            what = f"the policy {name} is required, but {reason}"
            fix = f"enforce {name}" if "condition" not in reason else "take out its when"
            yield Violation(rule.name, product.name, name, what, fix)
    for name in present:
        where = "take it out of the product" if name in own else f"add {name} with mode off to the product"
        if name in rule.denied:
            yield Violation(rule.name, product.name, name, f"the policy {name} is denied", where)
        elif rule.allowed is not None and name in listed and name not in (*rule.allowed, *ALWAYS):
            what = f"the policy {name} is not among those allowed"
            yield Violation(rule.name, product.name, name, what, where)


def _missing(name: str, chain: Sequence[PolicyUse], product: Product) -> str:
    """Return why a required policy does not bind every request of the product; empty if it does."""
    uses = [use for use in chain if use.policy == name]
    if not uses:
        off = any(use.policy == name for use in product.policies)
        return "the product takes it out" if off else "it is not in the chain"
    enforced = [use for use in uses if use.mode == "enforce"]
    if not enforced:
        return "it is in shadow mode"
    if all(use.when is not None and use in product.policies for use in enforced):
        return "the product sets a condition for it"
    return ""
