"""What a product has to satisfy beyond its own fields: policies that can work, and the template rules."""

from collections.abc import Awaitable, Sequence
from typing import Any

from services.apimgmt import chain
from services.apimgmt.admin.context import AdminContext
from services.apimgmt.domain import Product
from services.apimgmt.policies.api import Tools
from services.apimgmt.store.api import Document, Store
from services.extproc.config import Problem


def product_problems(context: AdminContext, product: Product, documents: Sequence[Document]) -> list[Problem]:
    """Return what keeps a product from being saved."""
    return chain.problems(context.settings.policies, context.tools or _bare(context.store), product)


def _bare(store: Store) -> Tools:
    """Return tools that suffice to check settings."""

    def nothing(_: Awaitable[Any]) -> None:
        raise RuntimeError("policies are only checked here")

    return Tools(store, lambda _map, _entry: None, nothing)
