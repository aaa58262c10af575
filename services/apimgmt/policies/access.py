"""Access: the first product of the caller that has the model and the operation."""

from collections.abc import Collection
from typing import ClassVar

from services.apimgmt import errors, identity
from services.apimgmt.binding import EVERY
from services.apimgmt.call import Call
from services.apimgmt.directory import Directory
from services.apimgmt.domain import App, Approval, Product
from services.apimgmt.errors import Refusal
from services.apimgmt.policies.api import Policy, Stage
from services.bodyrouter.operations import MODELS_PATH, ROUTED
from services.extproc.api import Answer
from services.extproc.config import ConfigModel


class AccessSettings(ConfigModel):
    """Settings of `access`: there are none."""


class AccessPolicy(Policy[AccessSettings]):
    """Sets `call.product`. A request whose headers name no model is judged by its operation, and again by `recheck`."""

    name: ClassVar[str] = "access"
    stage: ClassVar[Stage] = Stage.HEADERS
    settings_model = AccessSettings

    def check(self, call: Call) -> Answer:
        """Find the product."""
        caller, model, operation = call.caller, call.model, call.operation
        if caller is None:
            return errors.missing_credentials().reply()
        for product in caller.products:
            models, operations = product.models, product.operations
            if operation in (ROUTED if operations is None else operations) and (
                not model or models is None or model in models
            ):
                call.product = product
                call.exchange.request_changes.set[identity.PRODUCT] = product.name
                return None
        call.product = None
        return None if _lists_models(call) else self._refuse(call).reply()

    def recheck(self, call: Call) -> Answer:
        """Judge again by the body's `model` where no header named one. Called when the body is parsed.

        The product may change by it, and with it the chain.
        """
        model = call.body.get("model")
        if call.model:
            return None
        if not isinstance(model, str) or not model:
            # A server would take the one that it likes.
            return errors.missing_model().reply() if call.operation in ROUTED else None
        call.model = model
        return self.check(call)

    def _refuse(self, call: Call) -> Refusal:
        """Say which of model and operation is the matter, and what would help."""
        caller = call.caller
        assert caller is not None  # noqa: S101 - checked before
        has_model = not call.model or any(p.models is None or call.model in p.models for p in caller.products)
        has_operation = any(call.operation in (p.operations or ROUTED) for p in caller.products)
        hint = self._hint(call)
        if not has_model:
            return errors.model_not_allowed(call.model, hint)
        if call.model and has_operation:
            return errors.operation_not_allowed_for(call.operation, call.model, hint)
        return errors.operation_not_allowed(call.operation, hint)

    def _hint(self, call: Call) -> str:
        """Look for a subscription that would do if it were approved."""
        directory, caller = self.tools.extras.get("directory"), call.caller
        if caller is None or not isinstance(directory, Directory):
            return ""
        app = directory.snapshot.apps.get((caller.organization, caller.app))
        for status, text in _HINTS.items():
            for product in _subscribed(app, status, directory.snapshot.products.values()):
                models, operations = product.models, product.operations
                if call.operation in (operations or ROUTED) and (
                    not call.model or EVERY in models or call.model in models
                ):
                    return text.format(app=caller.app, product=product.name)
        return ""


_HINTS = {
    Approval.PENDING: "The subscription of app {app} to product {product} waits for approval.",
    Approval.REVOKED: "The subscription of app {app} to product {product} was revoked.",
}


def _subscribed(app: App | None, status: Approval, products: Collection[Product]) -> list[Product]:
    names = [s.product for s in app.products if s.status is status] if app else []
    return [product for product in products if product.name in names]


def _lists_models(call: Call) -> bool:
    """Tell whether it is a request for the model list, which no product has to name."""
    path = call.operation
    listing = path == MODELS_PATH or (path.startswith(MODELS_PATH + "/") and not _leads_out(path))
    return listing and call.exchange.request_headers.get(":method") == "GET"


def _leads_out(path: str) -> bool:
    """Tell whether a server could read dots in a path, escaped ones too, as a way to another one."""
    return ".." in path.lower().replace("%2e", ".")
