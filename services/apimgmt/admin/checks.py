"""What products and template rules have to satisfy beyond their own fields and names."""

from collections.abc import Sequence
from dataclasses import replace

from services.apimgmt import chain, kvm, template_rules
from services.apimgmt.admin.context import AdminContext
from services.apimgmt.domain import Entity, Kind, Product, TemplateRule
from services.apimgmt.store.api import Document
from services.apimgmt.template_rules import Violation
from services.extproc.config import Problem


def problems(context: AdminContext, entity: Entity, documents: Sequence[Document]) -> list[Problem]:
    """Return what keeps an entity from being saved: policies that cannot work, violations of template rules."""
    if isinstance(entity, Product):
        found = chain.problems(context.settings.policies, context.tools, entity)
        return found or [
            Problem("policies", v.policy, f"{v.what} (template rule {v.rule})", v.fix)
            for v in template_rules.violations(_rules(documents), context.settings.policies, entity)
        ]
    if isinstance(entity, TemplateRule):
        own = template_rules.problems_of_rules([entity])
        return [replace(p, path=p.path.removeprefix("templateRules[0].")) for p in own]
    return []


def all_violations(context: AdminContext, documents: Sequence[Document]) -> list[Violation]:
    """Return the violations of all products that there are."""
    rules = _rules(documents)
    products = (Product.model_validate(dict(d.body)) for d in documents if d.kind is Kind.PRODUCT)
    return [v for p in products for v in template_rules.violations(rules, context.settings.policies, p)]


def map_users(context: AdminContext, documents: Sequence[Document], name: str) -> list[str]:
    """Return whose policies take values from a key-value map."""
    chains = [("policies of the stack", [use.settings for use in context.settings.policies])]
    for document in documents:
        if document.kind is Kind.PRODUCT:
            settings = [use.get("settings") or {} for use in document.body.get("policies") or ()]
            chains.append((f"products/{document.name}", settings))
    return [who for who, settings in chains if any(found == name for found, _ in kvm.references(settings))]


def _rules(documents: Sequence[Document]) -> list[TemplateRule]:
    return [TemplateRule.model_validate(dict(d.body)) for d in documents if d.kind is Kind.TEMPLATE_RULE]
