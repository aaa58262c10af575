import pytest

from services.apimgmt.billing import Fee, Terms, bounds, query, statement
from services.apimgmt.domain import App, Approval, Kind, Organization, Prices, Product, RatePlan, Subscription
from services.apimgmt.store.api import Document, UsageRow


def app(name, *products, organization="acme", status=Approval.APPROVED):
    subscriptions = [Subscription(product=product, status=status) for product in products]
    return App(name=name, organization=organization, team="t", developer="ada", products=subscriptions)


PLANS = [
    RatePlan(name="paid", per_request=5, monthly_fee=1000, prices=Prices(prompt=1_000_000, completion=1_000_000)),
    RatePlan(name="tier", free_tokens=1000, per_request=2, prices=Prices(prompt=1_000_000, completion=1_000_000)),
]
PRODUCTS = [
    Product(name="chat", models=["*"], rate_plan="paid"),
    Product(name="more", models=["*"], rate_plan="paid"),
    Product(name="lab", models=["*"]),
]
ORGANIZATIONS = [Organization(name="acme", rate_plan="tier"), Organization(name="other", rate_plan="tier")]


def terms(*apps):
    return Terms.of([*PLANS, *PRODUCTS, *ORGANIZATIONS, *apps])


def row(app, product, tokens, cost, *, requests=1, organization="acme", outcome="ok", **group):
    names = {"organization": organization, "app": app, "product": product, "outcome": outcome, **group}
    sums = {"requests": requests, "promptTokens": tokens, "completionTokens": 0, "costMicros": cost}
    return UsageRow(0, names, sums)


def test_months_are_of_the_calendar_in_utc():
    assert bounds("2026-11") == (1793491200, 1796083200)
    assert bounds("2026-12")[1] == bounds("2027-01")[0]


@pytest.mark.parametrize("month", ["2026-13", "2026", "0000-01", "9999-12", "2026-1", "x", "2026-11-01"])
def test_what_is_no_month_is_refused(month):
    with pytest.raises(ValueError, match="expected year and month"):
        bounds(month)


def test_the_query_has_what_the_statement_needs():
    asked = query("2026-11", ("team", "app"), "acme")
    assert asked.group_by == ("organization", "app", "product", "outcome", "team")
    assert (asked.organization, asked.bucket) == ("acme", "all")
    with pytest.raises(ValueError, match="by: planet"):
        query("2026-11", ("planet",))


def test_lines_sum_what_belongs_together():
    rows = [
        row("a", "chat", 10, 15, model="m", key="k1"),
        row("a", "more", 20, 25, model="n", key="k1"),
        row("b", "chat", 30, 35, model="m", key="k2"),
    ]
    by_app = statement(rows, terms(), "2026-11", ("organization", "app"))
    assert [(line.group["app"], line.requests, line.prompt_tokens, line.cost) for line in by_app.lines] == [
        ("a", 2, 30, 40),
        ("b", 1, 30, 35),
    ]
    by_model = statement(rows, terms(), "2026-11", ("model",))
    assert [(line.group, line.amount) for line in by_model.lines] == [({"model": "m"}, 50), ({"model": "n"}, 25)]
    assert by_app.amount == by_model.amount == 75 + 2 * 1000


def test_free_tokens_are_taken_from_an_organizations_use_alike():
    rows = [
        row("a", "lab", 3000, 3002),
        row("b", "lab", 1000, 1002),
        row("c", "lab", 500, 502, organization="other"),
        row("a", "chat", 700, 705),
    ]
    result = statement(rows, terms(), "2026-11", ("organization", "app"))
    # 1,000 of acme's 4,000 tokens are free: a quarter of what its tokens cost; requests are not.
    assert [(line.cost, line.credit) for line in result.lines] == [(3707, 750), (1002, 250), (502, 500)]


def test_parts_of_a_credit_add_up():
    rows = [row(f"a{n}", "lab", 999 + n, 1001 + n) for n in range(7)]
    lines = statement(rows, terms(), "2026-11", ("app",)).lines
    tokens = sum(999 + n for n in range(7))
    assert sum(line.credit for line in lines) == round(tokens * 1000 / tokens)
    assert all(0 <= line.credit <= line.cost for line in lines)


def test_refused_requests_and_unpriced_ones_get_no_credit():
    rows = [row("a", "lab", 0, 0, requests=500, outcome="refused"), row("a", "gone", 100, 0, organization="nobody")]
    result = statement(rows, terms(), "2026-11", ("outcome",))
    assert [line.credit for line in result.lines] == [0, 0]
    assert result.fees == []


def test_fees_once_per_app_and_plan():
    apps = [
        app("a", "chat", "more"),
        app("b", "chat", status=Approval.PENDING),
        app("c", "lab"),
        app("f", "chat", status=Approval.REVOKED),
    ]
    rows = [row("b", "chat", 5, 10), row("d", "more", 5, 10), row("e", "chat", 0, 0, outcome="refused")]
    result = statement(rows, terms(*apps), "2026-11", ("app",))
    assert result.fees == [Fee("acme", name, "paid", 1000) for name in ("a", "b", "d")]


def test_fees_of_one_organization():
    apps = [app("a", "chat"), app("x", "chat", organization="other")]
    result = statement([], terms(*apps), "2026-11", (), "other")
    assert result.fees == [Fee("other", "x", "paid", 1000)]
    assert result.as_json()["amountMicros"] == 1000


def test_terms_come_from_the_stores_documents():
    entities = [*PLANS, *PRODUCTS, *ORGANIZATIONS, app("a", "chat")]
    documents = [Document(e.kind, "", e.name, e.model_dump(mode="json", by_alias=True)) for e in entities]
    assert Terms.of_documents(documents) == terms(app("a", "chat"))
    assert documents[0].kind is Kind.RATE_PLAN
