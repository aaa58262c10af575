"""Template rules against products and the chain of all products."""

from typing import Any

import pytest

from services.apimgmt.domain import PolicyUse, Product, TemplateRule
from services.apimgmt.template_rules import problems_of_products, problems_of_rules, violations


def rule(**fields: Any) -> TemplateRule:
    return TemplateRule.model_validate({"name": "house", **fields})


def product(*policies: dict[str, Any]) -> Product:
    return Product.model_validate({"name": "chat", "models": ["*"], "policies": list(policies)})


def uses(*policies: dict[str, Any]) -> list[PolicyUse]:
    return [PolicyUse.model_validate(policy) for policy in policies]


SCRIPT = {"policy": "script", "settings": {"source": "x"}}
SPIKE = {"policy": "spike-arrest", "settings": {}}


@pytest.mark.parametrize(
    ("rules", "chain", "own", "says"),
    [
        ({"required": ["spike-arrest"]}, [], [], "it is not in the chain"),
        ({"required": ["spike-arrest"]}, [SPIKE], [], None),
        ({"required": ["spike-arrest"]}, [], [SPIKE], None),
        ({"required": ["spike-arrest"]}, [SPIKE], [{**SPIKE, "mode": "off"}], "the product takes it out"),
        ({"required": ["spike-arrest"]}, [SPIKE], [{**SPIKE, "mode": "shadow"}], "shadow mode"),
        ({"required": ["spike-arrest"]}, [{**SPIKE, "mode": "shadow"}], [], "shadow mode"),
        ({"required": ["spike-arrest"]}, [SPIKE], [{**SPIKE, "when": "false"}], "condition"),
        ({"required": ["spike-arrest"]}, [{**SPIKE, "when": "promptTokens > 9"}], [], None),
        ({"required": ["limits", "credentials"]}, [], [], None),
        ({"required": ["limits"]}, [], [{"policy": "limits", "mode": "off"}], "the product takes it out"),
        ({"denied": ["script"]}, [], [], None),
        ({"denied": ["script"]}, [], [SCRIPT], "is denied"),
        ({"denied": ["script"]}, [], [{**SCRIPT, "mode": "shadow"}], "is denied"),
        ({"denied": ["script"]}, [SCRIPT], [], "is denied"),
        ({"denied": ["script"]}, [SCRIPT], [{"policy": "script", "mode": "off"}], None),
        ({"denied": ["limits"]}, [], [], "is denied"),
        ({"allowed": ["limits"]}, [], [], None),
        ({"allowed": []}, [], [], None),
        ({"allowed": ["limits"]}, [], [SPIKE], "not among those allowed"),
        ({"allowed": ["spike-arrest"]}, [], [SPIKE], None),
        ({"allowed": ["limits"]}, [SPIKE], [], "not among those allowed"),
        ({"allowed": ["limits"]}, [SPIKE], [{"policy": "spike-arrest", "mode": "off"}], None),
    ],
)
def test_violations(rules: dict[str, Any], chain: list[Any], own: list[Any], says: str | None) -> None:
    found = violations([rule(**rules)], uses(*chain), product(*own))
    if says is None:
        assert found == []
    else:
        (violation,) = found
        assert says in str(violation)
        assert (violation.rule, violation.product) == ("house", "chat")
        assert violation.fix


def test_all_violations_of_all_rules() -> None:
    found = violations(
        [rule(required=["spike-arrest", "script"]), rule(name="second", denied=["validation"])], [], product()
    )
    assert [(v.rule, v.policy) for v in found] == [
        ("house", "spike-arrest"),
        ("house", "script"),
        ("second", "validation"),
    ]


def test_declared_products() -> None:
    (problem,) = problems_of_products([rule(denied=["script"])], [], [product(), product(SCRIPT)])
    assert str(problem) == (
        "products[1].policies: the policy script is denied (template rule house) (found script); "
        "take it out of the product"
    )


@pytest.mark.parametrize(
    ("fields", "path", "says"),
    [
        ({"required": ["limits", "limit"]}, "templateRules[0].required[1]", "unknown policy"),
        ({"allowed": ["x"]}, "templateRules[0].allowed[0]", "unknown policy"),
        ({"required": ["limits"], "denied": ["limits"]}, "templateRules[0].required", "also denied"),
        ({"required": ["limits"], "allowed": ["cache"]}, "templateRules[0].required", "not among those allowed"),
        ({"denied": ["access"]}, "templateRules[0].denied", "every chain"),
    ],
)
def test_rules_that_cannot_hold(fields: dict[str, Any], path: str, says: str) -> None:
    (problem,) = problems_of_rules([rule(**fields)])
    assert problem.path == path
    assert says in problem.expected


def test_rules_that_can() -> None:
    assert problems_of_rules([rule(required=["limits", "access"], allowed=["limits"], denied=["script"])]) == []
