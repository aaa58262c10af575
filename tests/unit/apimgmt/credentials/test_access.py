"""The policy `access`: which product serves, and what is said where none does."""

import pytest

from services.apimgmt.domain import App
from tests.unit.apimgmt.credentials.world import CHAT, EMBEDDINGS, answer, call, entities, error, world


async def judged(w, **more):
    """Return a call whose caller is known, and the policy's answer."""
    plain, _ = w.issue()
    made = call(("x-api-key", plain), **more)
    assert await answer(w.credentials().check(made)) is None
    return made, await answer(w.access().check(made))


@pytest.mark.parametrize(
    ("model", "path", "product"),
    [("gemma", CHAT, "basic"), ("embedder", EMBEDDINGS, "vectors"), ("", CHAT, "basic"), ("", EMBEDDINGS, "vectors")],
)
async def test_the_first_product_that_has_both_serves(model, path, product):
    async with world() as w:
        made, reply = await judged(w, model=model, path=path)
        assert reply is None
        assert made.product.product.name == product
        assert made.exchange.request_changes.set["x-penstock-product"] == product


@pytest.mark.parametrize(
    ("model", "path", "code", "text"),
    [
        ("unknown", CHAT, "model_not_allowed", "`unknown`. The subscription of app chat to product all was revoked."),
        ("big", CHAT, "model_not_allowed", "`big`. The subscription of app chat to product secret waits for approval."),
        ("gemma", EMBEDDINGS, "operation_not_allowed", "`/v1/embeddings` with the model `gemma`."),
        ("gemma", "/v1/rerank", "operation_not_allowed", "no access to `/v1/rerank`."),
        ("", "/v1/rerank", "operation_not_allowed", "no access to `/v1/rerank`."),
        ("gemma", CHAT + "/", "operation_not_allowed", CHAT + "/"),
        ("gemma", CHAT.upper(), "operation_not_allowed", CHAT.upper()),
    ],
)
async def test_where_none_has_both_it_is_said_what_is_missing(model, path, code, text):
    async with world() as w:
        made, reply = await judged(w, model=model, path=path)
        found = error(reply)
        assert text in found["message"]
        assert (found["status"], found["code"], found["type"]) == (403, code, "invalid_request_error")
        assert found["param"] == ("model" if code == "model_not_allowed" else None)
        assert made.product is None
        assert "x-penstock-product" not in made.exchange.request_changes.set


@pytest.mark.parametrize(
    "path", ["/metrics", "/v1/load_lora_adapter", "/v1/%63hat/completions", CHAT + "/", "//" + CHAT]
)
async def test_every_operation_means_every_operation_that_is_accounted(path):
    async with world() as w:
        app = next(e for e in entities() if isinstance(e, App))
        w.store.put(App.model_validate({**app.model_dump(by_alias=True), "products": [{"product": "all"}]}))
        await w.directory.refresh()
        made, reply = await judged(w, path=path)
        assert error(reply)["code"] == "operation_not_allowed"
        assert made.product is None


async def test_an_app_without_products_is_told_to_subscribe():
    async with world() as w:
        app = next(e for e in entities() if isinstance(e, App))
        w.store.put(app.model_copy(update={"products": []}))
        await w.directory.refresh()
        _, reply = await judged(w)
        assert error(reply)["message"].endswith("Subscribe to a product that has it.")


async def test_a_subscription_counts_as_soon_as_it_is_approved_and_no_longer():
    async with world() as w:
        app = next(e for e in entities() if isinstance(e, App))
        for status, good in (("approved", True), ("revoked", False)):
            subscriptions = [{"product": "secret", "status": status}]
            w.store.put(App.model_validate({**app.model_dump(by_alias=True), "products": subscriptions}))
            await w.directory.refresh()
            _, reply = await judged(w, model="big")
            assert (reply is None) is good


async def test_a_model_that_only_the_body_names_is_judged_when_the_body_is_there():
    async with world() as w:
        made, reply = await judged(w, model="")
        assert reply is None
        made.body = {"model": "big"}
        assert error(w.access().recheck(made))["code"] == "model_not_allowed"
        assert made.product is None
        made, _ = await judged(w, model="")
        made.body = {"model": "gemma"}
        assert w.access().recheck(made) is None
        assert (made.model, made.product.product.name) == ("gemma", "basic")


@pytest.mark.parametrize("body", [{}, {"model": None}, {"model": 7}, {"model": ""}])
async def test_a_body_that_names_no_model_is_refused_since_the_server_would_choose_one(body):
    async with world() as w:
        made, _ = await judged(w, model="")
        made.body = body
        found = error(w.access().recheck(made))
        assert (found["status"], found["code"], found["param"]) == (400, "missing_required_parameter", "model")


async def test_a_header_goes_before_the_body():
    async with world() as w:
        made, _ = await judged(w)
        made.body = {"model": "big"}
        assert w.access().recheck(made) is None
        assert made.model == "gemma"


@pytest.mark.parametrize(
    ("path", "method", "good"),
    [
        ("/v1/models", "GET", True),
        ("/v1/models/gemma", "GET", True),
        ("/v1/models", "POST", False),
        ("/v1/modelsx", "GET", False),
        ("/v1/models/meta/llama-3.1:v1%2F8b", "GET", True),
        ("/v1/models/../load_lora_adapter", "GET", False),
        ("/v1/models/x/%2E%2e/%2e./metrics", "GET", False),
    ],
)
async def test_the_model_list_needs_no_product(path, method, good):
    async with world() as w:
        made, reply = await judged(w, model="", path=path, method=method)
        assert (reply is None) is good
        assert made.product is None


async def test_without_a_caller_nothing_is_opened():
    async with world() as w:
        assert error(w.access().check(call()))["status"] == 401


async def test_what_a_client_wrote_is_shortened_and_cleaned_in_the_message():
    async with world() as w:
        _, reply = await judged(w, model="x\udcff\u202e\x1b" * 100)
        message = error(reply)["message"]
        assert len(message) < 300
        assert "\x1b" not in message
        assert "\u202e" not in message
