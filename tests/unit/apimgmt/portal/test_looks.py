"""Numbers and words for people, charts, and what makes pages accessible: labels, headings, names, contrast."""

import ast
import itertools
import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import pytest

from services.apimgmt.domain import Limit, Prices, RatePlan
from services.apimgmt.portal import charts, formats, snippets, static, words
from tests.unit.apimgmt.portal.conftest import Site

CSS = Path(static.__file__).with_name("static").joinpath("portal.css").read_text()

TEXT, GRAPHICS = 4.5, 3.0
"""Contrast at least (WCAG 2.2, success criteria 1.4.3 and 1.4.11)."""

PAIRS = [
    *((ink, ground, TEXT) for ink in ("ink", "muted", "accent") for ground in ("ground", "surface", "sunken")),
    *((tone, f"{tone}-ground", TEXT) for tone in ("good", "warn", "bad")),
    ("on-accent", "accent", TEXT),
    ("surface", "bad", TEXT),
    *((tone, "surface", GRAPHICS) for tone in ("tone-1", "tone-2", "tone-3", "tone-4", "bad", "field")),
]

PAGES = ["", "products", "apps", "apps/support-bot", "keys", "usage", "limits", "try", "nothing"]


def _palette(scheme: str) -> dict[str, str]:
    light, dark = CSS.split("@media (prefers-color-scheme: dark)", 1)
    names = dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6});", light))
    return names | (dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6});", dark)) if scheme == "dark" else {})


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("ink", "ground", "least"), PAIRS)
def test_colours_can_be_told_from_their_ground(scheme: str, ink: str, ground: str, least: float) -> None:
    palette = _palette(scheme)
    assert _contrast(palette[ink], palette[ground]) >= least


def test_contrast_is_computed_as_the_standard_says() -> None:
    assert _contrast("#ffffff", "#000000") == pytest.approx(21)
    assert _contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_every_colour_has_a_name_and_a_dark_form() -> None:
    light, dark = CSS.split("@media (prefers-color-scheme: dark)", 1)
    rules = re.sub(r"--[a-z0-9-]+:[^;]+;", "", CSS)
    assert not re.search(r"#[0-9a-f]{3,8}\b|rgb\(|hsl\(", rules)
    assert "url(" not in CSS
    assert "@import" not in CSS
    names = set(re.findall(r"--([a-z0-9-]+): #", light))
    assert names == set(re.findall(r"--([a-z0-9-]+): #", dark))
    assert set(re.findall(r"var\(--([a-z0-9-]+)\)", CSS)) <= names | {"shadow"}


class Page(HTMLParser):
    """What a page is made of, as far as it matters here."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, *names: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag in names]


def problems(text: str) -> list[str]:
    """Return what keeps people from using a page."""
    page, found = Page(text), []
    ids = [a["id"] for _, a in page.tags if a.get("id")]
    found += [f"id {name} twice" for name in set(ids) if ids.count(name) > 1]
    labelled = {a.get("for") for a in page.all("label")}
    for field in page.all("input", "select", "textarea"):
        if field.get("type") != "hidden" and field.get("id") not in labelled:
            found.append(f"field {field} without a label")
    for _, attributes in page.tags:
        for name in ("aria-labelledby", "aria-describedby"):
            found += [f"{name} {n}: no such id" for n in (attributes.get(name) or "").split() if n not in ids]
    for name in labelled:
        if name not in ids:
            found.append(f"label for {name}: no such field")
    for svg in page.all("svg"):
        if svg.get("aria-hidden") != "true" and not (svg.get("role") == "img" and svg.get("aria-label")):
            found.append(f"svg {svg} without a name")
    found += [f"img {img} without alt" for img in page.all("img") if img.get("alt") is None]
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    if levels.count(1) != 1 or levels[0] != 1 or any(b > a + 1 for a, b in itertools.pairwise(levels)):
        found.append(f"headings {levels}")
    if len(page.all("main")) != 1 or page.all("html")[0].get("lang") != "en":
        found.append("no main, or no language")
    first = next(a for tag, a in page.tags if tag == "a")
    if first.get("href") != "#main" or "main" not in ids:
        found.append("no skip link")
    found += [f"th {th} without scope" for th in page.all("th") if th.get("scope") not in ("col", "row")]
    found += [f"positive tabindex {a}" for _, a in page.tags if int(a.get("tabindex") or 0) > 0]
    if "<title> –" in text or "<title></title>" in text:
        found.append("no title")
    return found


def test_the_check_finds_what_is_wrong() -> None:
    bad = '<html><a href="/x">x</a><h2>a</h2><input id="a"><svg></svg><img src="x"><th>x</th><p id="a" tabindex="2">'
    assert len(problems(bad)) == 9


async def test_every_page_is_accessible(site: Site) -> None:
    _, made = await site.furnish()
    for browser, paths in (
        (site.browser(), ["sign-in"]),
        (await site.visit("new@acme"), PAGES[:3] + PAGES[4:8]),
        (await site.visit("lead@acme"), PAGES),
        (await site.visit(), [*PAGES, f"keys/{made[0][1].id}/rotate", f"keys/{made[0][1].id}/revoke"]),
    ):
        for path in paths:
            text = (await browser.client.get(f"/portal/{path}")).text
            assert problems(text) == [], path
    browser = await site.visit()
    for path in ("apps", "keys"):
        answer = await browser.post(f"/portal/{path}", name="No", app="")
        assert problems(answer.text) == [], path
    await browser.post("/portal/keys", app="support-bot", days="30")
    assert problems(await browser.get("/portal/keys/issued")) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (9_999, "9,999"), (10_000, "10K"), (12_345, "12.3K"), (999_999, "999K"), (1_000_000, "1M"),
     (4_567_890, "4.56M"), (2**53, "9007T"), (1_500_000_000, "1.5B")],
)  # fmt: skip
def test_numbers_are_read_at_a_glance(value: int, text: str) -> None:
    assert formats.compact(value) == text


@pytest.mark.parametrize(
    ("micros", "text"),
    [(0, "$0.00"), (1, "$0.000001"), (1_020, "$0.00102"), (500_000, "$0.50"), (1_234_567_890, "$1,234.57")],
)
def test_money_below_a_dollar_is_never_rounded_away(micros: int, text: str) -> None:
    assert formats.money(micros) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "now"), (1, "1 second"), (59, "59 seconds"), (61, "1 minute"), (3_660, "1 hour 1 minute"),
     (86_400 * 12 + 3_600, "12 days"), (90_000, "1 day 1 hour")],
)  # fmt: skip
def test_spans_are_as_exact_as_it_takes(seconds: int, text: str) -> None:
    assert formats.span(seconds) == text


def test_times_that_no_calendar_has_do_not_break_a_page() -> None:
    assert "9999" in formats.date(2**53)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"scope": "key", "kind": "requests", "window": "minute"}, "100 requests per minute, for each key"),
        ({"scope": "team", "kind": "cost", "window": "month"}, "$0.0001 per month, shared by the team"),
        ({"scope": "user", "kind": "concurrent"}, "100 requests at the same time, for each person"),
        (
            {"scope": "group", "kind": "tokens", "window": "month", "rolling": True, "models": ["a", "b"]},
            "100 tokens in any 30 days, shared by a group, only a and b",
        ),
    ],
)
def test_limits_are_put_in_words(fields: dict[str, object], text: str) -> None:
    assert words.limit(Limit.model_validate({"name": "x", "amount": 100, **fields})) == text


def test_prices_are_put_in_words() -> None:
    assert words.prices(None) == words.prices(RatePlan(name="x", free_tokens=5)) == ["Free of charge"]
    own = {"tiny": Prices(), "big": Prices(prompt=3_000_000, completion=3_000_000, reasoning=4_000_000)}
    plan = RatePlan(name="x", per_request=100, monthly_fee=5_000_000, prices=Prices(prompt=1), models=own)
    assert words.prices(plan) == [
        "$0.000001 per million prompt tokens",
        "$0.00 per million completion tokens",
        "tiny: no charge for tokens",
        "big: $3.00 per million prompt tokens",
        "big: $3.00 per million completion tokens",
        "big: $4.00 per million reasoning tokens",
        "$0.0001 per answered request",
        "$5.00 per app and month",
    ]


@pytest.mark.parametrize("value", [0, 1, 2, 3, 7, 9, 10, 11, 99, 100, 101, 4_001, 8_001, 123_456_789])
def test_axes_end_with_a_round_number_above_all_values(value: int) -> None:
    top = charts.ceiling(value)
    assert value <= top <= max(1, value * 2)
    assert str(top).rstrip("0") in ("1", "2", "4", "5", "8")


def test_columns_stand_on_each_other_and_fill_what_they_are_of_the_axis() -> None:
    two = [charts.Series("a", [10, 0], 1), charts.Series("b", [30, 0], 2)]
    svg = charts.columns(two, ["Mon", "<b>"], ["40", "0"], "Name & more", 80)
    assert 'class="tone-1" x="1" y="87.50" width="8" height="12.50"' in svg
    assert 'class="tone-2" x="1" y="50.00" width="8" height="37.50"' in svg
    assert svg.count("tone-") == 2
    assert "<title>&lt;b&gt;: 0</title>" in svg
    assert 'aria-label="Name &amp; more"' in svg


def test_snippets_quote_what_comes_from_outside() -> None:
    model = 'it\'s "x"; $(rm -rf /) `x`'
    command, program = snippets.curl(None, model, "KEY"), snippets.program(None, model, "KEY")
    sent = json.loads(shlex.split(command.replace("\\\n", " "))[-1])
    assert sent["model"] == model
    texts = [node.value for node in ast.walk(ast.parse(program)) if isinstance(node, ast.Constant)]
    assert {model, "KEY", "https://GATEWAY/v1"} <= set(texts)
