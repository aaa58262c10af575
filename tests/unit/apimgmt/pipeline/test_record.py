"""Ledger records that are put together from parts."""

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from services.apimgmt.call import Caller, Credential, Finding, Verdict
from services.apimgmt.ledger import record as records
from services.apimgmt.ledger.record import RequestOutcome
from services.apimgmt.usage.tokens import Tokens
from tests.unit.apimgmt.calls import make_call

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(TEXT, TEXT, TEXT, st.text(max_size=600), st.booleans(), st.booleans(), st.integers(0, 2**53), st.booleans())
def test_a_lost_record_is_what_encoding_it_gives(team, model, base, operation, stream, estimated, cost, found):
    call = make_call()
    call.caller = Caller("acme", team, 'a"b\\', "app", "key", Credential.JWT, ())
    call.model, call.base_model, call.stream = model, base, stream
    call.operation = operation.encode("utf-8", "replace").decode()
    if found:
        call.findings.append(Finding("script", Verdict.DENY, 'co"de', shadow=True))
    tokens = Tokens(7, 3, 2, 1, estimated)
    part = records.part_of(call)
    whole = records.make(call, RequestOutcome.LOST, tokens=tokens, cost=cost)
    assert records.lost(call, part, tokens, cost) == records.dump(whole)
    assert records.make(call, RequestOutcome.LOST, tokens=tokens, cost=cost, part=part) == whole
    assert orjson.loads(records.dump(whole))["model"] == (base or model)


def test_what_is_no_text_is_recorded_all_the_same():
    call = make_call(path=b"/v1/\xff".decode("utf-8", "surrogateescape"))
    assert orjson.loads(records.dump(records.make(call, RequestOutcome.OK)))["operation"] == "/v1/?"


def test_long_paths_are_not_remembered():
    call = make_call()
    call.caller = Caller("acme", "", "", "app", "key", Credential.API_KEY, ())
    call.operation = "/" + "x" * records.MAX_CHARACTERS
    assert records.part_of(call) is not records.part_of(call)
    call.operation = "/v1/chat/completions"
    assert records.part_of(call) is records.part_of(call)
