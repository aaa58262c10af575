"""Who asks: the admin token, or a person by a personal key."""

import hmac
from dataclasses import dataclass

from services.apimgmt import keys
from services.apimgmt.admin.context import AdminContext
from services.apimgmt.admin.problems import ProblemError
from services.apimgmt.domain import Developer, KeyPurpose, KeyRecord, Kind, Role

TOUCH_S = 60
"""How often the last use of a personal key is written at most, seconds."""

ADMIN_TOKEN_ACTOR = "admin-token"  # noqa: S105 - its name in the audit trail
MAX_HEADER = 512
"""Longest Authorization header that is looked at, characters; keys and tokens are far shorter."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks."""

    role: Role
    actor: str
    """In the audit trail: `developer:acme/ada@example.com` or `admin-token`."""
    organization: str = ""
    team: str = ""
    developer: str = ""
    """Empty for the admin token."""
    key: str = ""
    """Id of the personal key."""


def unauthorized(detail: str) -> ProblemError:
    """Return the answer to a credential that is missing or wrong (RFC 6750, section 3)."""
    return ProblemError(401, "unauthorized", detail, headers={"WWW-Authenticate": 'Bearer realm="penstock"'})


async def authenticate(context: AdminContext, authorization: str | None) -> Principal:
    """Return who sent the Authorization header. Raises ProblemError (401)."""
    scheme, _, token = (authorization or "")[:MAX_HEADER].partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise unauthorized("send `Authorization: Bearer KEY` with a personal key (psp_...) or the admin token")
    if context.admin_token and hmac.compare_digest(token.encode(), context.admin_token.encode()):
        return Principal(Role.ADMIN, ADMIN_TOKEN_ACTOR)
    return await person(context, token)


async def person(context: AdminContext, text: str) -> Principal:
    """Return whose personal key `text` is. Raises ProblemError (401). The portal signs in with it, too."""
    parsed = keys.parse(text)
    record = await context.store.key(parsed.id) if parsed else None
    digest = keys.digest(context.pepper, text)
    if record is None or not hmac.compare_digest(digest, record.digest) or record.purpose is not KeyPurpose.PERSONAL:
        raise unauthorized("the key is not known here, or is no personal key")
    return await person_of(context, record)


async def person_of(context: AdminContext, record: KeyRecord) -> Principal:
    """Return whose personal key `record` is, if it holds still. Raises ProblemError (401)."""
    now = context.now
    if record.revoked is not None and record.revoked <= now:
        raise unauthorized("the key was revoked")
    if record.expires is not None and record.expires <= now:
        raise unauthorized("the key has expired")
    document = await context.store.get(Kind.DEVELOPER, record.organization, record.developer)
    developer = Developer.model_validate(dict(document.body)) if document else None
    if developer is None or not developer.active:
        raise unauthorized("the key's owner is not active")
    if record.last_used is None or now - record.last_used >= TOUCH_S:
        await context.store.touch({record.id: now})
    return Principal(
        developer.role,
        f"developer:{developer.organization}/{developer.name}",
        developer.organization,
        developer.team,
        developer.name,
        record.id,
    )
