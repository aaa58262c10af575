from hypothesis import given, settings
from hypothesis import strategies as st

from services.apimgmt.domain import Prices, RatePlan
from services.apimgmt.pricing import ceiling, cost
from services.apimgmt.usage.tokens import Tokens

PLAN = RatePlan(
    name="p",
    per_request=10,
    prices=Prices(prompt=1_000_000, cached=100_000, completion=4_000_000, reasoning=2_000_000),
    models={"small": Prices(prompt=1, completion=3)},
)


def test_each_kind_has_its_price():
    assert cost(PLAN, "m", Tokens(100, 40, 20, 5)) == 60 * 1 + 4 + 15 * 4 + 5 * 2 + 10


def test_kinds_without_a_price_cost_what_their_whole_costs():
    plan = RatePlan(name="p", prices=Prices(prompt=1_000_000, completion=4_000_000))
    assert cost(plan, "m", Tokens(100, 40, 20, 5)) == 100 + 80
    free = RatePlan(name="p", prices=Prices(prompt=1_000_000, cached=0, completion=4_000_000, reasoning=0))
    assert cost(free, "m", Tokens(100, 40, 20, 5)) == 60 + 60


def test_it_is_rounded_half_up_once():
    plan = RatePlan(name="p", prices=Prices(prompt=250_000, completion=250_000))
    assert [cost(plan, "m", Tokens(n)) for n in (0, 1, 2, 3)] == [0, 0, 1, 1]
    assert cost(plan, "m", Tokens(1, 0, 1)) == 1


def test_a_model_has_its_own_prices_and_an_adapter_those_of_its_base():
    million = Tokens(1_000_000)
    assert cost(PLAN, "small", million) == 1 + 10
    assert cost(PLAN, "adapter", million, base="small") == 1 + 10
    assert cost(PLAN, "adapter", million, base="other") == 1_000_000 + 10
    assert ceiling(PLAN, "adapter", 1_000_000, 0, base="small") == 1 + 10


def test_requests_are_charged_as_often_as_told():
    assert cost(PLAN, "m", Tokens(), 0) == 0
    assert cost(PLAN, "m", Tokens(), 3) == 30


def test_without_a_plan_nothing_costs():
    assert cost(None, "m", Tokens(10**9)) == ceiling(None, "m", 10**9, 10**9) == 0


PRICE = st.integers(0, 10**9)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.data(), PRICE, st.none() | PRICE, PRICE, st.none() | PRICE, st.integers(0, 10**6), st.integers(0, 10**6))
def test_what_is_reserved_is_never_less_than_what_is_charged(data, a, b, c, d, prompt, output):
    plan = RatePlan(name="p", per_request=3, prices=Prices(prompt=a, cached=b, completion=c, reasoning=d))
    used = data.draw(st.integers(0, prompt)), data.draw(st.integers(0, output))
    tokens = Tokens(used[0], data.draw(st.integers(0, used[0])), used[1], data.draw(st.integers(0, used[1])))
    assert cost(plan, "m", tokens) <= ceiling(plan, "m", prompt, output)
