"""What the cache keeps has passed the filters that stand behind it on the request, here a screen."""

from services.apimgmt.policies.cache import Cache
from services.extproc.api import BodyMode, Exchange, Filter, FilterStream, Outcome
from services.extproc.chain import Chain
from services.extproc.limits import Limits
from services.extproc.session import Session
from tests.support.extproc import DUPLEX, body, headers
from tests.unit.apimgmt.cache.calls import World


class Keeper(Filter):
    """Runs the policy as the pipeline does: at the request's body, and with the chunks that it sees of the answer."""

    name = "keeper"
    request_body = BodyMode.WHOLE
    response_body = BodyMode.CHUNKS

    def __init__(self, world: World, policy: Cache) -> None:
        self.world, self.policy = world, policy

    def open(self, exchange: Exchange) -> FilterStream:
        owner, call, pieces = self, self.world.call(), list[bytes]()

        class Stream(FilterStream):
            def on_request_body(self):  # type: ignore[no-untyped-def]
                return owner.policy.check(call)

            def on_response_headers(self):  # type: ignore[no-untyped-def]
                call.exchange.response_headers = exchange.response_headers
                owner.policy.on_response(call)

            def on_response_chunk(self, chunk: bytes, last: bool) -> bytes:
                pieces.append(chunk)
                return chunk

            def on_end(self, outcome: Outcome) -> None:
                call.response = b"".join(pieces)
                owner.policy.on_done(call, outcome)

        return Stream()


class Screen(Filter):
    """Blackens a word of answers."""

    name = "screen"
    response_body = BodyMode.CHUNKS

    def open(self, exchange: Exchange) -> FilterStream:
        class Stream(FilterStream):
            def on_response_chunk(self, chunk: bytes, last: bool) -> bytes:
                return chunk.replace(b"secret", b"******")

        return Stream()


async def send(chain: Chain) -> Session:
    session = Session(chain, Limits())
    await session.receive(headers("request", modes=(DUPLEX, DUPLEX)))
    await session.receive(body("request", b"{}", last=True))
    if session.reply is None:
        await session.receive(headers("response", {":status": "200", "content-type": "application/json"}))
        await session.receive(body("response", b'{"text":"a secret"}', last=True))
    session.close()
    return session


async def test_screened_answers_are_what_is_kept() -> None:
    world = World()
    chain = Chain([Keeper(world, world.policy()), Screen()])  # the order of the request
    assert (await send(chain)).reply is None
    reply = (await send(chain)).reply
    assert reply is not None
    assert reply.body == b'{"text":"a ******"}'
