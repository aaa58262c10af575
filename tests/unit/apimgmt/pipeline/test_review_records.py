"""Every request of a known caller has its record, whatever bytes the request is made of."""

from pathlib import Path

import pytest

from services.extproc.proto import ext_proc_pb2 as pb
from tests.unit.apimgmt.pipeline.world import World, limit, reply


def raw(message: pb.ProcessingRequest, name: str, value: bytes) -> pb.ProcessingRequest:
    for header in message.request_headers.headers.headers:
        if header.key == name:
            header.raw_value = value
    return message


@pytest.mark.parametrize(
    ("name", "value", "outcome"),
    [(":path", b"/v1/\xff\xfe", "refused"), ("x-gateway-model-name", b"ll\xffama", "aborted")],
)
async def test_bytes_that_are_no_text_are_recorded(tmp_path: Path, name: str, value: bytes, outcome: str) -> None:
    limits = [limit("open", "concurrent", 9, None), limit("each", "requests", 9, scope="model")]
    async with World(tmp_path, limits=limits) as world:
        opened = world.session()
        answers = await opened.receive(raw(world.request_headers(), name, value))
        if outcome == "refused":
            assert reply(answers)[0] == 403
        opened.close()
        [record] = await world.records()
        assert record["outcome"] == outcome
