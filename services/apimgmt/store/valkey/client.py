"""Calls to a server or a cluster that survive its restarts, failovers and moves of slots.

Every command and script that goes through here may be carried out twice with the effect of once: so a call whose reply
was lost is simply made again, until its patience ends. Then StoreError tells why, with no secret in it.
"""

import asyncio
import hashlib
import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from services.apimgmt.store.api import StoreError
from services.apimgmt.store.valkey import slots
from services.apimgmt.store.valkey.auth import Password
from services.apimgmt.store.valkey.link import Arg, Broken, Link, Refused, ReplyError, connect

PATIENCE_S = 4.0
"""How long a call is tried before it fails, seconds."""

FIRST_DELAY_S, LONGEST_DELAY_S = 0.02, 1.0
"""Wait between two tries; doubles."""

MAX_SHOWN = 160
"""Longest error text of a server that is passed on, characters."""

MAX_TAGS = 100_000
"""Hash tags whose node is remembered."""

WAITING = frozenset({"LOADING", "CLUSTERDOWN", "TRYAGAIN", "MASTERDOWN", "BUSY"})
"""Errors that go away by themselves."""

RECONNECT = frozenset({"READONLY", "NOAUTH", "WRONGPASS"})
"""Errors that another connection may not have: after a failover, or when a token ended."""

HINTS = {
    "OOM": "the server is out of memory; give it more, or shorten ledger.retentionDays",
    "MISCONF": "the server cannot write its append-only file; look after its disk",
    "NOPERM": "the user may not run what the store needs: EVALSHA and the commands of strings, hashes, streams, sets",
}

Address = tuple[str, int]

logger = logging.getLogger("penstock.apimgmt")


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script and its SHA-1, by which servers know it."""

    text: str
    sha: str

    @classmethod
    def of(cls, text: str) -> "Script":
        """Prepare a script."""
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


class Node:
    """One server: at most one connection, made when it is needed."""

    def __init__(self, address: Address, tls: ssl.SSLContext | None, password: Password) -> None:
        self.address = address
        self.link: Link | None = None
        self._tls, self._password = tls, password
        self._connecting: asyncio.Task[Link] | None = None

    async def ready(self) -> Link:
        """Return an open connection; calls at the same time share one attempt. Raises Broken, Refused."""
        if self.link is not None:
            return self.link
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())
            self._connecting.add_done_callback(self._done)
        return await asyncio.shield(self._connecting)

    def _done(self, task: "asyncio.Task[Link]") -> None:
        self._connecting = None
        if not task.cancelled():
            task.exception()  # whoever waited has it

    async def _connect(self) -> Link:
        password = await self._password.get()
        try:
            link = await connect(*self.address, self._tls, password, self._lost)
        except Refused:
            self._password.forget()
            raise
        self.link = link
        return link

    def _lost(self, link: Link) -> None:
        if self.link is link:
            self.link = None

    def drop(self, why: str) -> None:
        """Give the connection up."""
        if self.link is not None:
            self.link.abort(why)
            self.link = None

    async def close(self) -> None:
        """Let go."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        if self.link is not None:
            await self.link.close()
        await asyncio.sleep(0)  # one that was given up goes in the next turn


class Client:
    """See the module's text."""

    def __init__(
        self, address: Address, *, password: Password, tls: ssl.SSLContext | None = None, cluster: bool = False
    ) -> None:
        self._tls, self._password, self._cluster = tls, password, cluster
        self._seed = Node(address, tls, password)
        self._nodes: dict[Address, Node] = {address: self._seed}
        self._map: list[Address | None] = []
        self._by_tag: dict[str, Node] = {}
        self._renewing: asyncio.Task[None] | None = None
        self._closed = False

    async def open(self) -> None:
        """Connect, and see that the server answers. Raises StoreError."""
        await self.run("", ("PING",))
        if self._password.renews:
            self._renewing = asyncio.create_task(self._renew())

    async def close(self) -> None:
        """Let go of all connections."""
        self._closed = True
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
        for node in self._nodes.values():
            await node.close()

    async def script(self, script: Script, tag: str, keys: list[str], args: list[Arg], patience: float = 0) -> Any:
        """Run a script whose keys all carry `{tag}`."""
        return await self.run(tag, ("EVALSHA", script.sha, len(keys), *keys, *args), patience, script)

    async def run(self, tag: str, args: tuple[Arg, ...], patience: float = 0, script: Script | None = None) -> Any:
        """Run a command where `{tag}` is. Raises StoreError after `patience` seconds (0: `PATIENCE_S`)."""
        node = self._seed if not self._cluster else self._by_tag.get(tag)
        if node is not None and (link := node.link) is not None:
            try:
                reply = await link.call(args)
            except Broken:
                pass
            else:
                if type(reply) is not ReplyError:
                    return reply
        return await self._insist(tag, args, patience or PATIENCE_S, script)

    async def _insist(self, tag: str, args: tuple[Arg, ...], patience: float, script: Script | None) -> Any:
        """Try until it works, or patience ends."""
        loop = asyncio.get_running_loop()
        deadline, delay, reason = loop.time() + patience, FIRST_DELAY_S, "no connection"
        while not self._closed:
            pause = True
            try:
                async with asyncio.timeout_at(deadline):
                    node = await self._node(tag)
                    reply = await (await node.ready()).call(args)
                    if type(reply) is not ReplyError:
                        return reply
                    reason = _shown(str(reply))
                    pause = await self._heed(str(reply), node, tag)
                    if script is not None and reason.startswith("NOSCRIPT"):
                        args = ("EVAL", script.text, *args[2:])
            except (Broken, Refused) as error:
                reason = str(error)
                if isinstance(error, Refused) and not self._password.renews:
                    raise StoreError(f"store {reason}; check PENSTOCK_STORE_PASSWORD and auth") from None
                self._by_tag.clear()
                self._map = []  # a failover may have moved the slots
            except TimeoutError:
                pass
            if loop.time() + delay > deadline:
                break
            if pause:
                await asyncio.sleep(delay)
                delay = min(2 * delay, LONGEST_DELAY_S)
        host, port = self._seed.address
        raise StoreError(f"store {host}:{port}: {'closed' if self._closed else reason}; tried for {patience:g} s")

    async def _heed(self, text: str, node: Node, tag: str) -> bool:
        """Do what an error asks for. Return whether to wait before the next try. Raises StoreError if none helps."""
        code = text.split(" ")[0]
        if code == "NOSCRIPT":
            return False
        if code in {"MOVED", "ASK"}:
            if not self._cluster:
                raise StoreError("store: the server is a cluster; set cluster: true")
            slot, address = slots.read_redirect(text, node.address[0])
            if code == "MOVED" and self._map:
                self._map[slot] = address
                self._by_tag.clear()
            return code == "ASK"  # a slot on the move: wait until it has arrived
        if code in RECONNECT:
            self._password.forget()
            node.drop(f"the server replies {code}")
            return True
        if code in WAITING:
            return True
        raise StoreError(f"store: {HINTS[code]} ({code})" if code in HINTS else f"store: {_shown(text)}")

    async def _node(self, tag: str) -> Node:
        if not self._cluster or not tag:
            return self._seed
        if not self._map:
            await self._read_map()
        address = self._map[slots.slot_of(tag)]
        if address is None:
            self._map = []
            raise Broken("the cluster has no node for a part of the keys; wait until cluster_state is ok")
        if len(self._by_tag) >= MAX_TAGS:
            self._by_tag.clear()
        node = self._by_tag[tag] = self._at(address)
        return node

    def _at(self, address: Address) -> Node:
        node = self._nodes.get(address)
        if node is None:
            node = self._nodes[address] = Node(address, self._tls, self._password)
        return node

    async def _read_map(self) -> None:
        """Ask any node that answers where the slots are."""
        reason: Exception = Broken("no node answers")
        for node in [self._seed, *(n for n in self._nodes.values() if n is not self._seed)]:
            try:
                reply = await (await node.ready()).call(("CLUSTER", "SLOTS"))
            except Broken as error:
                reason = error
                continue
            if isinstance(reply, ReplyError):
                if "cluster support disabled" in str(reply):
                    raise StoreError("store: the server is not a cluster; set cluster: false")
                reason = Broken(_shown(str(reply)))
                continue
            self._map = slots.read_slots(reply, node.address[0])
            return
        raise reason

    async def _renew(self) -> None:
        """Authenticate open connections anew with each new token."""
        while True:
            await asyncio.sleep(max(self._password.remaining(), 1.0))
            try:
                self._password.forget()
                token = await self._password.get()
                links = [n.link for n in self._nodes.values() if n.link is not None]
                for reply in await asyncio.gather(*[link.call(("AUTH", token or "")) for link in links]):
                    if isinstance(reply, ReplyError):
                        raise Broken("the server refuses the new access token")
            except Broken as error:
                logger.warning("the store's access token could not be renewed", extra={"error": str(error)})


def background(tasks: set["asyncio.Task[None]"], start: Callable[[], Any]) -> None:
    """Run something beside the caller, kept in `tasks` until it is done."""
    task = asyncio.create_task(start())
    tasks.add(task)
    task.add_done_callback(tasks.discard)


def _shown(text: str) -> str:
    """Shorten an error text. Those that repeat the command's arguments lose them."""
    return text.split("with args beginning with", 1)[0].strip()[:MAX_SHOWN]
