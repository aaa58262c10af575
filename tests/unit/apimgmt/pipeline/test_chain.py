"""Chains: order, product changes, shadow mode, conditions, failures, edits, and answers in place of the model's."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from services.apimgmt import chain
from services.apimgmt.call import Call
from services.apimgmt.domain import PolicyUse, Product
from services.apimgmt.policies.api import Policy, Stage, Tools
from services.extproc.api import Answer, Outcome, Reply, deny
from services.extproc.config import ConfigModel
from tests.support.extproc import body, headers
from tests.unit.apimgmt.pipeline.world import CHAT, World, answer, limit, reply

BEHAVIOURS: dict[str, Callable[[Call], Answer]] = {
    "pass": lambda call: None,
    "deny": lambda call: deny(418, "no", code="teapot"),
    "fail": lambda call: 1 / 0,  # type: ignore[return-value]
    "answer": lambda call: Reply(200, b"{}", {"content-type": "application/json"}, "cached"),
    "grow": lambda call: call.edit().update(messages=[{"role": "user", "content": "x" * 3000}]),  # type: ignore[func-returns-value]
    "head": lambda call: call.set_header("x-mark", "1"),  # type: ignore[func-returns-value]
}


class StandInSettings(ConfigModel):
    do: str = "pass"
    later: bool = False
    open: bool = False


class StandIn(Policy[StandInSettings]):
    """Does as its settings say, at once or later."""

    name: ClassVar[str] = "script"
    settings_model = StandInSettings
    log: ClassVar[list[str]] = []

    def __init__(self, settings: StandInSettings, tools: Tools) -> None:
        super().__init__(settings, tools)
        if settings.do not in BEHAVIOURS:
            raise ValueError(f"do: expected one of {', '.join(BEHAVIOURS)}")
        self.fail_open = settings.open

    def check(self, call: Call) -> Answer:
        self.log.append(f"check {self.settings.do}")
        return self._later(call) if self.settings.later else BEHAVIOURS[self.settings.do](call)

    async def _later(self, call: Call) -> Reply | None:
        await asyncio.sleep(0)
        found = BEHAVIOURS[self.settings.do](call)
        assert found is None or isinstance(found, Reply)
        return found

    async def start(self) -> None:
        self.log.append("start")

    async def stop(self) -> None:
        self.log.append("stop")

    def on_response(self, call: Call) -> None:
        assert not call.shadow
        call.headers["x-seen"] = call.exchange.response_headers.get(":status")
        call.keep_response = True

    def on_done(self, call: Call, outcome: Outcome) -> None:
        self.log.append(f"done {outcome.ending.value} {len(call.response)}")


class Early(StandIn):
    name: ClassVar[str] = "external"
    stage: ClassVar[Stage] = Stage.HEADERS


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    StandIn.log.clear()
    monkeypatch.setattr(chain, "REGISTRY", {**chain.REGISTRY, "script": StandIn, "external": Early})


def script(do: str = "pass", **more: Any) -> dict[str, Any]:
    settings = {name: more.pop(name) for name in ("later", "open") if name in more}
    return {"policy": "script", "settings": {"do": do, **settings}, **more}


def names(policies: list[dict[str, Any]], product: list[dict[str, Any]] | None = None) -> list[str]:
    uses, own = [[PolicyUse.model_validate(each) for each in part] for part in (policies, product or [])]
    return [use.policy for use in chain.merged(uses, own)]


def test_order() -> None:
    default = ["credentials", "access", "validation", "limits"]
    assert names([]) == default
    assert names([], [script()]) == [*default, "script"]
    assert names([], [{"policy": "spike-arrest"}]) == [*default[:3], "spike-arrest", "limits"]
    assert names([script(), {"policy": "limits"}]) == ["credentials", "access", "validation", "script", "limits"]
    assert names([], [{"policy": "limits", "mode": "off"}]) == default[:3]
    assert names([{"policy": "limits", "mode": "off"}], [{"policy": "limits"}]) == default
    assert names([script(), script()], [script()]) == [*default, "script"]
    assert names([script("pass"), script("deny")]).count("script") == 2


def test_problems_have_paths() -> None:
    uses = [
        {"policy": "spike-arrest", "settings": {"requests": {"amount": 0}}},
        {"policy": "no-such"},
        {"policy": "prompt-limit", "settings": {"maxToken": 3}},
        {"policy": "prompt-limit", "settings": {"maxTokens": 3}, "when": "body."},
        {"policy": "access", "mode": "off"},
        script("dance"),
    ]
    product = Product.model_validate({"name": "p", "models": ["*"], "policies": uses})
    tools = Tools(None, lambda *_: None, lambda _: None)  # type: ignore[arg-type]
    found = chain.problems([PolicyUse.model_validate(use) for use in uses], tools)
    assert [p.path for p in found] == [
        "policies[0].settings.requests.amount",
        "policies[1].policy",
        "policies[2].settings.maxTokens",
        "policies[2].settings.maxToken",
        "policies[3].policy",
        "policies[3].when",
        "policies[4]",
        "policies[5].settings.do",
    ]
    of_product = chain.problems([], tools, product, "products[1].")
    assert of_product[0].path == "products[1].policies[0].settings.requests.amount"
    assert any(p.path == "products[1].policies[4].policy" for p in of_product)


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("policy", ["script", "external"])
async def test_a_denial_ends_the_request(tmp_path: Path, later: bool, policy: str) -> None:
    policies = [{**script("deny", later=later), "policy": policy}]
    async with World(tmp_path, policies=policies, limits=[limit("rpm", "requests", 9)]) as world:
        opened = world.session()
        if policy == "external":
            answers = await opened.receive(world.request_headers())
        else:
            answers = await world.request(opened)
        status, fields, error = reply(answers)
        assert (status, error["error"]["code"]) == (418, "teapot")
        assert "x-penstock-overhead-ms" in fields
        opened.close()
        [record] = await world.records()
        assert record["outcome"] == "refused"
        assert record["verdicts"] == [{"policy": policy, "verdict": "deny", "code": "teapot", "shadow": False}]
        assert world.metrics.tallies[policy].verdicts == {("deny", "teapot", False): 1}
        assert await world.totals() == {"rpm": 0}


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("do", ["deny", "fail", "answer", "grow", "head"])
async def test_shadow_mode_has_no_effect(tmp_path: Path, do: str, later: bool) -> None:
    async with World(tmp_path, policies=[script(do, later=later, mode="shadow")]) as world:
        opened = world.session()
        answers = await world.request(opened)
        assert answers[0].HasField("request_headers")
        assert "x-mark" not in str(answers)
        assert b'"hi"' in opened.exchange.request_body
        assert not opened.exchange.request_body_changed
        await answer(opened)
        opened.close()
        [record] = await world.records()
        assert record["outcome"] == "ok"
        expected = {"deny": "teapot", "fail": "policy_error", "answer": "cached"}
        assert [v["code"] for v in record["verdicts"] if v["shadow"]] == ([expected[do]] if do in expected else [])


@pytest.mark.parametrize("later", [False, True])
async def test_a_failure_that_may_be_passed_over(tmp_path: Path, later: bool) -> None:
    async with World(tmp_path, policies=[script("fail", open=True, later=later)]) as world:
        opened = world.session()
        assert (await world.request(opened))[0].HasField("request_headers")
        await answer(opened)
        opened.close()
        [record] = await world.records()
        assert [v["verdict"] for v in record["verdicts"]] == ["error"]


async def test_a_condition(tmp_path: Path) -> None:
    async with World(tmp_path, policies=[script("deny", when='body.user == "x"')]) as world:
        assert (await world.request(world.session(), {**CHAT, "user": "y"}))[0].HasField("request_headers")
        assert reply(await world.request(world.session(), {**CHAT, "user": "x"}))[0] == 418
        assert world.metrics.tallies["script"].verdicts[("skip", "", False)] == 1


@pytest.mark.parametrize("later", [False, True])
async def test_an_answer_in_place_of_the_models(tmp_path: Path, later: bool) -> None:
    limits = [limit("rpm", "requests", 2), limit("tpm", "tokens", 100), limit("open", "concurrent", 1, None)]
    async with World(tmp_path, policies=[script("answer", later=later)], limits=limits) as world:
        for _ in range(2):
            opened = world.session()
            status, fields, _ = reply(await world.request(opened))
            assert (status, fields.get("x-ratelimit-limit-requests")) == (200, "2")
            opened.close()
        assert reply(await world.request(world.session()))[0] == 429
        records = await world.records()
        assert [(r["outcome"], r["promptTokens"], r["status"]) for r in records] == [("cached", 0, 200)] * 2
        assert await world.totals() == {"rpm": 2, "tpm": 0, "open": 0}


async def test_a_changed_body_is_reserved_for_anew(tmp_path: Path) -> None:
    limits = [limit("tpm", "tokens", 10_000)]
    async with World(tmp_path, policies=[{"policy": "limits"}, script("grow")], limits=limits) as world:
        opened = world.session()
        await world.request(opened)
        assert (await world.totals())["tpm"] > 700
        assert len(json.loads(opened.exchange.request_body)["messages"][0]["content"]) == 3000


async def test_policies_see_the_answer(tmp_path: Path) -> None:
    async with World(tmp_path, policies=[script()]) as world:
        opened = world.session()
        await world.request(opened)
        [answered] = await opened.receive(headers("response", {":status": "200", "content-type": "text/plain"}))
        assert any(o.header.key == "x-seen" for o in answered.response_headers.response.header_mutation.set_headers)
        await opened.receive(body("response", b"abc"))
        await opened.receive(body("response", b"de", last=True))
        opened.close()
        assert StandIn.log[-1] == "done complete 5"


async def test_chains_change_while_running(tmp_path: Path) -> None:
    async with World(tmp_path, policies=[script()]) as world:
        [product] = world.directory.snapshot.products.values()
        first = world.chains.products["std"].body[-1].policy
        await world.chains.use([PolicyUse.model_validate(script())], [product])
        assert world.chains.products["std"].body[-1].policy is first
        assert StandIn.log == ["start"]
        await world.chains.use([PolicyUse.model_validate(script("deny"))], [product])
        assert StandIn.log == ["start", "start"]  # the first is stopped when its requests have passed it
        assert reply(await world.request(world.session()))[0] == 418
        broken = product.model_copy(update={"policies": [PolicyUse(policy="gone")]})
        await world.chains.use([], [broken])
        _, _, error = reply(await world.session().receive(world.request_headers()))
        assert error["error"]["code"] == "product_misconfigured"


async def test_a_product_that_was_just_made_is_waited_for(tmp_path: Path) -> None:
    async with World(tmp_path, policies=[script()]) as world:
        products = list(world.directory.snapshot.products.values())
        await world.chains.use([], [])
        asked = asyncio.create_task(world.request(world.session()))
        await asyncio.sleep(0)
        assert not asked.done()
        await world.chains.use([], products)
        assert (await asked)[0].HasField("request_headers")


async def test_the_model_list_needs_a_key_only(tmp_path: Path) -> None:
    fields = {":method": "GET", ":path": "/v1/models", "x-gateway-model-name": ""}
    products = [{"name": "std", "models": ["x"], "operations": ["/v1/embeddings"]}]
    async with World(tmp_path, products=products) as world:
        opened = world.session()
        message = world.request_headers(fields)
        message.request_headers.end_of_stream = True
        assert (await opened.receive(message))[0].HasField("request_headers")
        await answer(opened, {"data": []})
        opened.close()
        [record] = await world.records()
        assert (record["outcome"], record["product"], record["promptTokens"]) == ("ok", "", 0)


async def test_without_a_body_router_the_bodys_model_decides(tmp_path: Path) -> None:
    async with World(tmp_path, products=[{"name": "std", "models": ["other"]}]) as world:
        opened = world.session()
        status, _, error = reply(await world.request(opened, fields={"x-gateway-model-name": ""}))
        assert (status, error["error"]["code"]) == (403, "model_not_allowed")
