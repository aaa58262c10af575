"""Headers in the wire format, as protobuf itself would write them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.extproc.api import HeaderChanges
from services.extproc.messages import REQUEST, headers_answer
from services.extproc.proto import ext_proc_pb2 as pb

NAMES = st.one_of(st.text("abc-:é", min_size=1, max_size=9), st.just("n" * 200))
VALUES = st.one_of(
    st.text(st.characters(blacklist_characters="\n\r\0", blacklist_categories=["Cs"]), max_size=20),
    st.sampled_from(["", "v" * 127, "v" * 128, "v" * 20_000, b"\xff\xfe".decode("utf-8", "surrogateescape")]),
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.dictionaries(NAMES, VALUES, max_size=5))
def test_headers_are_written_as_protobuf_does(values: dict[str, str]) -> None:
    expected = pb.HeaderMutation()
    for name, value in values.items():
        option = expected.set_headers.add()
        option.append_action = pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
        option.header.key = name
        option.header.raw_value = value.encode("utf-8", "surrogateescape")
    answer = headers_answer(REQUEST, HeaderChanges(set=values), clear_route_cache=False)
    assert answer.request_headers.response.header_mutation == expected


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\0b"])
def test_values_that_would_be_two_headers_are_refused(value: str) -> None:
    with pytest.raises(ValueError, match="line breaks"):
        headers_answer(REQUEST, HeaderChanges(set={"x": value}), clear_route_cache=False)
