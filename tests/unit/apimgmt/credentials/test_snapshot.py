"""Documents worked into callers: which limits bind, which plan, and what dangling names do."""

import logging

from services.apimgmt.call import Caller, Credential
from services.apimgmt.domain import App, Developer, Group, Kind, Organization, Product, RatePlan, Team
from services.apimgmt.snapshot import Snapshot
from tests.unit.apimgmt.credentials.world import CLIENT, limit, world


def prefixes(product) -> list[str]:
    return [bound.prefix for bound in product.limits]


async def test_limits_bind_from_wide_to_narrow_each_by_its_own_scope():
    async with world() as w:
        plain, record = w.issue()
        basic, vectors = (await w.find(plain)).products
        assert prefixes(basic) == [
            "acme|org-day|",
            "acme|group-day|group:shared",
            "acme|team-day|team:search",
            "acme|user-day|user:ada@example.com",
            f"acme|key-minute|key:{record.id}",
            "acme|model-minute|model:",
        ]
        assert basic.limits[-1].models == frozenset({"gemma"})
        assert basic.limits[0].models is None
        assert prefixes(vectors) == [p for p in prefixes(basic) if "minute" not in p]
        assert (basic.plan.name, basic.operations) == ("standard", frozenset({"/v1/chat/completions"}))


async def test_keys_share_products_that_no_limit_tells_apart():
    async with world() as w:
        first, second = [await w.find(w.issue()[0]) for _ in range(2)]
        assert first.products[0] is not second.products[0]
        assert first.products[0].product is second.products[0].product
        w.store.put(Product(name="basic", models=["gemma"]))
        await w.directory.refresh()
        first, second = [await w.find(w.issue()[0]) for _ in range(2)]
        assert first.products is second.products


async def test_a_limit_that_is_named_twice_binds_once():
    async with world() as w:
        w.store.put(Product(name="basic", models=["*"], limits=["org-day", "user-day", "group-day"]))
        w.store.put(Team(name="search", organization="acme", limits=["org-day", "team-day"]))
        await w.directory.refresh()
        product = w.directory.caller_for_client(CLIENT, Credential.JWT).products[0]
        assert len(product.limits) == len(set(prefixes(product))) == 4
        assert product.models is None


async def test_a_group_limit_binds_each_group_and_a_groups_own_limit_that_group_only():
    async with world() as w:
        w.store.put(
            limit("budget", "group"),
            Group(name="other", organization="acme", users=["ada@example.com"]),
            Group(name="strangers", organization="acme", users=["bob"], limits=["org-day"]),
            Product(name="vectors", models=["embedder"], limits=["budget"]),
        )
        await w.directory.refresh()
        product = w.directory.caller_for_client(CLIENT, Credential.JWT).products[1]
        groups = [p for p in prefixes(product) if "|group:" in p]
        assert groups == ["acme|budget|group:other", "acme|budget|group:shared", "acme|group-day|group:shared"]


async def test_tokens_are_counted_per_client_where_a_limit_is_per_key():
    async with world() as w:
        caller = w.directory.caller_for_client(CLIENT, Credential.JWT, user="eve@example.org", expires=5.0)
        assert (caller.user, caller.key, caller.expires) == ("eve@example.org", "", 5.0)
        found = prefixes(caller.products[0])
        assert "acme|key-minute|key:client/chat" in found
        assert not any("user-day" in p for p in found)
        w.store.put(Developer(name="eve@example.org", organization="acme", team="search", limits=["user-day"]))
        await w.directory.refresh()
        found = prefixes(w.directory.caller_for_client(CLIENT, Credential.JWT, user="eve@example.org").products[0])
        assert "acme|user-day|user:eve@example.org" in found
        w.store.put(Developer(name="eve@example.org", organization="acme", team="search", active=False))
        await w.directory.refresh()
        refused = w.directory.caller_for_client(CLIENT, Credential.JWT, user="eve@example.org")
        assert refused.code == "developer_inactive"


async def test_a_products_plan_goes_before_the_organizations():
    async with world() as w:
        w.store.put(RatePlan(name="cheap"), Product(name="basic", models=["*"], rate_plan="cheap"))
        await w.directory.refresh()
        products = w.directory.caller_for_app("acme", "chat", Credential.API_KEY).products
        assert [p.plan.name for p in products] == ["cheap", "standard"]


async def test_names_of_what_does_not_exist_are_told_once_and_break_nothing(caplog):
    async with world() as w:
        for kind, name in ((Kind.LIMIT, "org-day"), (Kind.PRODUCT, "vectors"), (Kind.RATE_PLAN, "standard")):
            w.store.drop(kind, "", name)
        w.store.put(Group(name="shared", organization="acme", users=["gone"], teams=["search"]))
        with caplog.at_level(logging.WARNING, "penstock.apimgmt.directory"):
            await w.directory.refresh()
            w.store.put(Organization(name="new"))
            await w.directory.refresh()
        caller = w.directory.caller_for_client(CLIENT, Credential.JWT)
        assert isinstance(caller, Caller)
        assert [p.product.name for p in caller.products] == ["basic"]
        assert caller.products[0].plan is None
        problems = sorted(w.directory.problems)
        assert [p.partition(", so")[0] for p in problems] == [
            "apps/acme/chat: products[1].product: there is no product vectors",
            "groups/acme/shared: users[0]: there is no developer gone",
            "organizations/acme: limits[0]: there is no limit org-day",
            "organizations/acme: ratePlan: there is no rate plan standard",
        ]
        assert sorted(r.getMessage() for r in caplog.records) == problems


async def test_a_client_that_two_apps_claim_is_of_neither():
    async with world() as w:
        twin = App(name="twin", organization="acme", team="search", developer="ada@example.com", oauth_client_id=CLIENT)
        w.store.put(twin)
        await w.directory.refresh()
        assert w.directory.caller_for_client(CLIENT, Credential.JWT).code == "unknown_client"
        assert any(CLIENT in p for p in w.directory.problems)


async def test_documents_of_another_version_are_left_out_and_named():
    async with world() as w:
        bad = dict(w.store.documents[Kind.PRODUCT, "", "vectors"].body, surprise=1)
        place = (Kind.PRODUCT, "", "vectors")
        w.store.documents[place] = type(w.store.documents[place])(*place, bad, 99)
        w.store.put(Organization(name="new"))
        await w.directory.refresh()
        assert [p.product.name for p in w.directory.caller_for_client(CLIENT, Credential.JWT).products] == ["basic"]
        assert any(p.startswith("products/vectors: cannot be read (surprise)") for p in w.directory.problems)


async def test_what_did_not_change_is_not_read_again():
    async with world() as w:
        before = w.directory.snapshot
        w.store.put(Organization(name="new"))
        await w.directory.refresh()
        after = w.directory.snapshot
        assert after.revision > before.revision
        assert after.products["basic"] is before.products["basic"]
        assert "new" in after.organizations


async def test_observers_are_told_of_new_documents_and_cannot_break_the_directory(caplog):
    async with world() as w:
        seen: list[int] = []
        w.directory.on_change(lambda: 1 // 0)
        w.directory.on_change(lambda: seen.append(w.directory.revision))
        w.issue()
        await w.directory.refresh()
        assert seen == []
        w.store.put(Organization(name="new"))
        await w.directory.refresh()
        assert seen == [w.store.revision]
        assert "an observer of the directory failed" in caplog.text


def test_an_empty_store_is_a_snapshot_too():
    snapshot = Snapshot()
    assert (snapshot.problems, dict(snapshot.apps), snapshot.groups_of("a", "b", "c")) == ((), {}, [])
