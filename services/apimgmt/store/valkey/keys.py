"""Keys: found by id in one step, listed over indexes in the order of ids."""

import heapq
import secrets
from collections.abc import Mapping, Sequence
from itertools import islice

import orjson

from services.apimgmt.domain import KeyPurpose, KeyRecord
from services.apimgmt.store.api import AuditEntry, Conflict
from services.apimgmt.store.valkey import directory_scripts as scripts
from services.apimgmt.store.valkey.client import Client
from services.apimgmt.store.valkey.directory import audit_args
from services.apimgmt.store.valkey.layout import DIRECTORY, DIRECTORY_PREFIX
from services.apimgmt.store.valkey.link import Arg

PIECE = 200
"""Fewest keys that are read at once where some may not fit the query."""


class Keys:
    """See the module's text. Last uses are kept beside the records: writing a record does not take them back."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def key(self, key_id: str) -> KeyRecord | None:
        """See `Store.key`."""
        value, used = await self._client.script(scripts.GET_KEY, DIRECTORY, [DIRECTORY_PREFIX], [key_id])
        return None if value is None else _record(value, used)

    async def put_keys(self, records: Sequence[KeyRecord], audit: Sequence[AuditEntry], *, new: bool) -> int:
        """See `Store.put_keys`."""
        ids = [record.id for record in records]
        if new and len(set(ids)) < len(ids):
            raise Conflict("keys: an id stands twice in one call; make another")
        args: list[Arg] = [secrets.token_hex(8), len(records), len(audit), int(new)]
        for record in records:
            indexes = _indexes(record)
            body = record.model_dump(mode="json", by_alias=True)
            args += (record.id, len(indexes), *indexes, "\t".join(indexes).encode() + b"\n" + orjson.dumps(body))
        args += audit_args(audit)
        done, found = await self._client.script(scripts.PUT_KEYS, DIRECTORY, [DIRECTORY_PREFIX], args)
        if not done:
            what = "is there already" if new else "is another key: its digest differs"
            raise Conflict(f"keys/{records[found].id}: {what}; make another")
        return int(found)

    async def keys(
        self,
        organization: str,
        *,
        app: str | None = None,
        developer: str | None = None,
        purpose: KeyPurpose | None = None,
        after: str = "",
        limit: int = 100,
    ) -> list[KeyRecord]:
        """See `Store.keys`. With app and developer, keys of the app are read and those of others left out."""
        found = []
        for each in [purpose] if purpose else list(KeyPurpose):
            index = _index(each, organization, app=app, developer=developer if app is None else None)
            found.append(await self._listed(index, developer if app is not None else None, after, limit))
        return list(islice(heapq.merge(*found, key=lambda record: record.id), limit))

    async def _listed(self, index: str, developer: str | None, after: str, limit: int) -> list[KeyRecord]:
        listed: list[KeyRecord] = []
        while len(listed) < limit:
            count = limit if developer is None else max(limit, PIECE)
            flat = await self._client.script(scripts.LIST_KEYS, DIRECTORY, [DIRECTORY_PREFIX], [index, after, count])
            records = [_record(value, used) for value, used in zip(flat[::2], flat[1::2], strict=True)]
            listed += [record for record in records if developer is None or record.developer == developer]
            if len(records) < count:
                break
            after = records[-1].id
        return listed[:limit]

    async def touch(self, used: Mapping[str, int]) -> None:
        """See `Store.touch`."""
        if used:
            args: list[Arg] = [value for pair in used.items() for value in pair]
            await self._client.script(scripts.TOUCH, DIRECTORY, [DIRECTORY_PREFIX], args)


def _index(purpose: KeyPurpose, organization: str, *, app: str | None = None, developer: str | None = None) -> str:
    base = f"by:{purpose}:{organization}"
    if app is not None:
        return f"{base}:app:{app}"
    return base if developer is None else f"{base}:developer:{developer}"


def _indexes(record: KeyRecord) -> list[str]:
    purpose, organization = record.purpose, record.organization
    return [
        _index(purpose, organization),
        _index(purpose, organization, app=record.app),
        _index(purpose, organization, developer=record.developer),
    ]


def _record(value: bytes, used: bytes | None) -> KeyRecord:
    record = KeyRecord.model_validate_json(value.partition(b"\n")[2])
    if used is None or int(used) <= (record.last_used or 0):
        return record
    return record.model_copy(update={"last_used": int(used)})
