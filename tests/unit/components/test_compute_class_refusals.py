"""What `ComputeClass` refuses: path, value, what was expected, and the fix."""

import pytest

from tests.support.arguments import problems

H100 = {"accelerator": "h100-high"}


def choice(**fields):
    return {"choices": [{**H100, **fields}]}


REFUSED = [
    ({"name": "A"}, "name", "A", "RFC 1035", "Rename"),
    ({"choices": []}, "choices", 0, "1 to 10", "Name node pools"),
    ({"choices": [H100] * 11}, "choices", 11, "1 to 10", "Leave"),
    ({"when_unsatisfiable": "Wait"}, "when_unsatisfiable", "Wait", "without capacity", "DoNotScaleUp"),
    ({"choices": [{}]}, "choices[0]", {}, "either", "exactly one"),
    ({"choices": [{**H100, "node_pools": ["p"]}]}, "choices[0]", {**H100, "node_pools": ["p"]}, "either", "one of"),
    ({"choices": [{"node_pools": ["p"], "spot": True}]}, "choices[0].spot", True, "beside `node_pools`", "Remove"),
    ({"choices": [{"accelerator": "h100"}]}, "choices[0].accelerator", "h100", "catalogue", "h100-high"),
    (choice(machine_type="a3-megagpu-8g"), "choices[0].machine_type", "a3-megagpu-8g", "h100-high", "a3-highgpu-8g"),
    (choice(spot=True, flex_start=True), "choices[0]", ["spot", "flex_start"], "at most one", "in the order"),
    (choice(machine_type="a3-highgpu-1g"), "choices[0].machine_type", "a3-highgpu-1g", "spot or flex", "`spot`"),
    (choice(accelerator="gb200"), "choices[0].reservation", None, "a reservation", "Name"),
    (choice(reservation={}), "choices[0].reservation.name", None, "by name", "Name it"),
    (
        choice(reservation={"name": "r", "block": "b", "sub_block": "s"}),
        "choices[0].reservation.sub_block",
        "s",
        "one of its blocks",
        "Remove",
    ),
    (choice(topology="2x4"), "choices[0].topology", "2x4", "TPU slice of a3-highgpu-8g", "Remove"),
    (choice(max_run_duration_s=60), "choices[0].max_run_duration_s", 60, "from 600", "at least 600"),
]


@pytest.mark.parametrize(("changes", "path", "value", "expected", "fix"), REFUSED, ids=lambda item: str(item)[:50])
def test_refused(changes, path, value, expected, fix):
    (error,) = problems("ComputeClass", **changes)
    assert (error.path, error.value) == (f"args.{path}", value)
    assert expected in error.expected
    assert fix in error.fix
    assert not error.fix.endswith(".")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        choice(reservation={"name": "r", "project": "p", "block": "b"}),
        choice(machine_type="a3-highgpu-1g", flex_start=True, max_run_duration_s=604800),
        choice(accelerator="tpu-v6e", topology="4x4", zones=["us-central1-a"]),
        {"when_unsatisfiable": "ScaleUpAnyway", "move_back": True},
    ],
    ids=lambda item: str(item)[:60],
)
def test_accepted(changes):
    assert [str(error) for error in problems("ComputeClass", **changes)] == []
