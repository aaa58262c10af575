"""Apps and their subscriptions: what people may do to their own, and what takes an administrator."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from fastapi.responses import JSONResponse

from services.apimgmt.admin import shapes
from services.apimgmt.admin.access import PREFIX, Access, Guarded
from services.apimgmt.admin.edit import entity_of, refuse_declared, save
from services.apimgmt.admin.problems import ProblemError, not_found
from services.apimgmt.admin.shapes import problem_responses
from services.apimgmt.domain import App, Approval, Entity, Kind, Product, Subscription
from services.apimgmt.store.api import Document
from services.extproc.config import Problem

router = APIRouter(prefix=PREFIX, tags=["subscriptions"])

OrganizationPath = Annotated[str, Path(max_length=63)]
AppPath = Annotated[str, Path(max_length=63)]
ProductPath = Annotated[str, Path(max_length=63)]

_APP = "/organizations/{organization}/apps/{app}"


def forbidden(field: str, value: Any, expected: str) -> ProblemError:
    """Return the answer to a field that the role may not set so."""
    problem = Problem(field, repr(value), expected, "leave it as it is, or ask an administrator")
    return ProblemError(403, "forbidden", f"{field}: {expected}", errors=[problem])


async def prepare_app(access: Access, before: Document | None, entity: Entity) -> App:
    """Return an app as the caller may save it: subscriptions of others than administrators are asked for, not taken.

    Raises:
        ProblemError: 403 for fields that only administrators set.
    """
    assert isinstance(entity, App)  # noqa: S101 - told apart by its kind
    if access.is_admin:
        return entity
    who = access.principal
    old = App.model_validate(dict(before.body)) if before else None
    if entity.team not in (who.team, old.team if old else who.team):
        raise forbidden("team", entity.team, f"expected your team, {who.team}")
    if who.developer != entity.developer and (old is None or old.developer != entity.developer):
        await _refuse_stranger(access, entity)
    for field, value, kept in (
        ("trustedAgent", entity.trusted_agent, old.trusted_agent if old else False),
        ("oauthClientId", entity.oauth_client_id, old.oauth_client_id if old else None),
        ("active", entity.active, old.active if old else True),
    ):
        if value != kept and not (field == "active" and not value):
            raise forbidden(field, value, "expected no change: only administrators set it")
    had = {s.product: s for s in old.products} if old else {}
    products = [await _wanted(access, subscription, had) for subscription in entity.products]
    names = {s.product for s in products}
    for name, subscription in had.items():
        if name not in names and subscription.status is Approval.REVOKED:
            raise forbidden("products", name, "expected a revoked subscription to stay")
    return entity.model_copy(update={"products": products})


def refuse_app_removal(access: Access, document: Document) -> None:
    """Raise ProblemError (403) where deleting and making anew would undo what an administrator did."""
    app = App.model_validate(dict(document.body))
    revoked = any(s.status is Approval.REVOKED for s in app.products)
    if not access.is_admin and (revoked or not app.active):
        raise ProblemError(
            403, "forbidden", "an app that is inactive or has revoked subscriptions is deleted by an admin"
        )


async def _refuse_stranger(access: Access, app: App) -> None:
    """Let team leads give apps to developers of their team, and nobody else to anybody."""
    document = await access.context.store.get(Kind.DEVELOPER, app.organization, app.developer)
    if document is None or not access.sees(document):
        raise forbidden("developer", app.developer, "expected yourself, or as a team lead somebody of your team")


async def _wanted(access: Access, subscription: Subscription, had: dict[str, Subscription]) -> Subscription:
    """Return a subscription with the state that it has, or that the product gives to new ones."""
    if subscription.product in had:
        return had[subscription.product]
    product = await public_product(access, subscription.product)
    status = Approval.APPROVED if product.approval == "auto" else Approval.PENDING
    return Subscription(product=subscription.product, status=status)


async def public_product(access: Access, name: str) -> Product:
    """Return a product that the caller may subscribe to. Raises ProblemError (404)."""
    document = await access.context.store.get(Kind.PRODUCT, "", name)
    product = Product.model_validate(dict(document.body)) if document else None
    if product is None or not (access.is_admin or product.public):
        raise not_found(f"products/{name}")
    return product


@router.get("/subscriptions", summary="List subscriptions, for example those that wait", response_model=dict[str, Any])
async def subscriptions(
    access: Guarded, status: Annotated[Approval | None, Query(description="Only in this state.")] = None
) -> Response:
    """Return the subscriptions of all apps that the caller sees."""
    _, documents = await access.context.store.snapshot()
    items = [
        {"organization": d.organization, "app": d.name, "team": d.body["team"], "developer": d.body["developer"], **s}
        for d in documents
        if d.kind is Kind.APP and access.sees(d)
        for s in d.body.get("products") or ()
        if status is None or s["status"] == status.value
    ]
    return JSONResponse({"items": items, "next": None})


@router.put(
    f"{_APP}/subscriptions/{{product}}",
    summary="Ask for a product",
    response_model=shapes.DOCUMENT_MODELS[Kind.APP],
    responses=problem_responses(404, 409),
)
async def request_subscription(
    access: Guarded, organization: OrganizationPath, app: AppPath, product: ProductPath
) -> Response:
    """Subscribe an app: approved at once if the product says so, else pending. Asking again changes nothing."""
    document, current = await _app(access, organization, app)
    wanted = await public_product(access, product)
    existing = next((s for s in current.products if s.product == product), None)
    if existing and existing.status is Approval.REVOKED:
        raise ProblemError(
            409, "revoked", f"the subscription to {product} was revoked; an administrator can approve it"
        )
    if existing:
        return shapes.answer(document)
    status = Approval.APPROVED if wanted.approval == "auto" else Approval.PENDING
    return await _put(access, document, current, [*current.products, Subscription(product=product, status=status)])


@router.post(
    f"{_APP}/subscriptions/{{product}}/approve",
    summary="Approve a subscription",
    response_model=shapes.DOCUMENT_MODELS[Kind.APP],
    responses=problem_responses(404, 409),
)
async def approve(access: Guarded, organization: OrganizationPath, app: AppPath, product: ProductPath) -> Response:
    """Let an app use a product."""
    return await _set(access, organization, app, product, Approval.APPROVED)


@router.post(
    f"{_APP}/subscriptions/{{product}}/revoke",
    summary="Revoke a subscription",
    response_model=shapes.DOCUMENT_MODELS[Kind.APP],
    responses=problem_responses(404, 409),
)
async def revoke(access: Guarded, organization: OrganizationPath, app: AppPath, product: ProductPath) -> Response:
    """Take a product from an app; only an administrator can give it back."""
    return await _set(access, organization, app, product, Approval.REVOKED)


async def _app(access: Access, organization: str, name: str) -> tuple[Document, App]:
    document = await access.document(Kind.APP, organization, name)
    refuse_declared(document)
    entity = entity_of(Kind.APP, document.body)
    assert isinstance(entity, App)  # noqa: S101
    return document, entity


async def _set(access: Access, organization: str, name: str, product: str, status: Approval) -> Response:
    document, app = await _app(access, organization, name)
    if all(s.product != product for s in app.products):
        raise not_found(f"apps/{organization}/{name}/subscriptions/{product}")
    changed = [s.model_copy(update={"status": status}) if s.product == product else s for s in app.products]
    return await _put(access, document, app, changed)


async def _put(access: Access, document: Document, app: App, products: Sequence[Subscription]) -> Response:
    return shapes.answer(await save(access, document, app.model_copy(update={"products": list(products)})))
