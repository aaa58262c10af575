"""Whom keys belong to, and what can be done with their keys."""

from typing import Any

from fastapi import Response
from fastapi.responses import JSONResponse
from pydantic import Field

from services.apimgmt import keys
from services.apimgmt.admin.access import Access
from services.apimgmt.admin.edit import entity_of, lock
from services.apimgmt.admin.problems import ProblemError, invalid, not_found
from services.apimgmt.domain import App, KeyPurpose, KeyRecord, Kind
from services.apimgmt.store.api import AuditEntry, Conflict, Document
from services.extproc.config import ConfigModel, Problem

MAX_LIFETIME_DAYS = 3650
MAX_LABEL = 200


class KeyInfo(ConfigModel):
    """A key without what opens anything."""

    id: str = Field(description="The middle part of the key, no secret.", examples=["k5jq3xw7n2tbm4fz"])
    purpose: KeyPurpose
    state: keys.KeyState
    organization: str
    app: str = Field(description="Empty for personal keys.")
    developer: str
    display_name: str = ""
    created: int = Field(description="Unix seconds, as all times.")
    expires: int | None = None
    revoked: int | None = Field(default=None, description="In the future while a grace period runs.")
    replaced_by: str | None = None
    last_used: int | None = Field(default=None, description="To the minute.")


class IssuedKey(KeyInfo):
    """A new key. Nothing can show it again."""

    key: str = Field(description="The key itself, shown this once.", examples=["psk_k5jq3xw7n2tbm4fz_..."])


class KeyPage(ConfigModel):
    """A part of a list."""

    items: list[KeyInfo]
    next: str | None


class NewKey(ConfigModel):
    """What a new key is asked for with."""

    display_name: str = Field(default="", max_length=MAX_LABEL, examples=["laptop"])
    expires_in_days: int | None = Field(default=None, ge=1, le=MAX_LIFETIME_DAYS, description="Default: never.")
    expires: int | None = Field(default=None, ge=0, le=2**53, description="Unix seconds; in place of expiresInDays.")


class Rotation(ConfigModel):
    """How a key is replaced."""

    grace_seconds: int = Field(
        default=keys.DEFAULT_GRACE_S, ge=0, le=keys.MAX_GRACE_S, description="How long the old key works beside it."
    )


class KeyChange(ConfigModel):
    """What can be changed about a key."""

    display_name: str | None = Field(default=None, max_length=MAX_LABEL)
    expires: int | None = Field(default=None, ge=0, le=2**53, description="Unix seconds; null for never.")


def info(record: KeyRecord, now: int) -> dict[str, Any]:
    """Return a key as it is answered."""
    return {**keys.describe(record), "state": keys.state(record, now).value}


class Holder:
    """Whom keys belong to: an app, or a person."""

    def __init__(self, access: Access, document: Document) -> None:
        self.access, self.document = access, document
        self.purpose = KeyPurpose.API if document.kind is Kind.APP else KeyPurpose.PERSONAL
        self.now = access.context.now

    def owns(self, record: KeyRecord) -> bool:
        """Tell whether a key belongs to it."""
        named = record.app if self.purpose is KeyPurpose.API else record.developer
        place = (record.purpose, record.organization, named)
        return place == (self.purpose, self.document.organization, self.document.name)

    async def record(self, key_id: str) -> KeyRecord:
        """Return one of its keys. Raises ProblemError (404)."""
        record = await self.access.context.store.key(key_id)
        if record is None or not self.owns(record):
            raise not_found(f"keys/{key_id[:40]}")
        return record

    async def page(self, after: str, limit: int) -> tuple[list[KeyRecord], str | None]:
        """Return some of its keys, in the order of their ids."""
        api, name = self.purpose is KeyPurpose.API, self.document.name
        found = await self.access.context.store.keys(
            self.document.organization,
            app=name if api else None,
            developer=None if api else name,
            purpose=self.purpose,
            after=after,
            limit=limit + 1,
        )
        shown = list(found[:limit])
        return shown, shown[-1].id if len(found) > limit else None

    async def issue(self, wanted: NewKey) -> Response:
        """Make a key, and look afterwards whether its holder is still there."""
        context = self.access.context
        expires = wanted.expires
        if wanted.expires_in_days is not None:
            expires = context.now + wanted.expires_in_days * 86_400
        if expires is not None and expires <= context.now:
            problem = Problem("expires", repr(expires), "expected a time in the future", "choose a later time")
            raise invalid("the key", [problem])
        owner = entity_of(self.document.kind, self.document.body)
        app = owner if isinstance(owner, App) else None
        if not self.document.body.get("active"):
            raise ProblemError(409, "inactive", f"{self.document.name} is not active; keys of it would be refused")
        plain, record = keys.issue(
            context.pepper,
            organization=self.document.organization,
            developer=app.developer if app else self.document.name,
            app=app.name if app else "",
            purpose=self.purpose,
            display_name=wanted.display_name,
            now=context.now,
            expires=expires,
        )
        who = self.access.principal.actor
        async with lock(context.store):
            await keys.save_new(context.store, record, actor=who, now=context.now)
        if await context.store.get(self.document.kind, self.document.organization, self.document.name) is None:
            await keys.save_revocation(context.store, record.id, actor=who, now=context.now)
            raise Conflict(f"{self.document.name} was deleted meanwhile")
        return _issued(plain, record, context.now)

    async def rotate(self, key_id: str, grace_s: int) -> Response:
        """Replace a key."""
        context = self.access.context
        async with lock(context.store):
            record = await self.record(key_id)
            try:
                plain, new, old = keys.rotate(context.pepper, record, now=context.now, grace_s=grace_s)
            except ValueError as error:
                raise ProblemError(409, "not_rotatable", str(error)) from None
            await keys.save_rotation(context.store, new, old, actor=self.access.principal.actor, now=context.now)
        return _issued(plain, new, context.now)

    async def revoke(self, key_id: str) -> Response:
        """End a key now."""
        context = self.access.context
        async with lock(context.store):
            record = await self.record(key_id)
            record = await keys.save_revocation(
                context.store, record.id, actor=self.access.principal.actor, now=context.now
            )
        return JSONResponse(info(record, context.now))

    async def change(self, key_id: str, change: KeyChange) -> Response:
        """Change a key's label or end. One that has ended stays so."""
        context = self.access.context
        async with lock(context.store):
            before = await self.record(key_id)
            if keys.state(before, context.now) in (keys.KeyState.REVOKED, keys.KeyState.EXPIRED):
                raise ProblemError(409, "ended", "the key has ended; issue a new one")
            values = {name: getattr(change, name) for name in change.model_fields_set}
            if values.get("display_name", "") is None:
                values["display_name"] = ""
            after = before.model_copy(update=values)
            if after != before:
                entry = AuditEntry(
                    context.now,
                    self.access.principal.actor,
                    "update",
                    "keys",
                    after.organization,
                    after.id,
                    keys.describe(before),
                    keys.describe(after),
                )
                await context.store.put_keys([after], [entry], new=False)
        return JSONResponse(info(after, context.now))


def _issued(plain: str, record: KeyRecord, now: int) -> Response:
    return JSONResponse({**info(record, now), "key": plain}, 201, {"cache-control": "no-store"})
