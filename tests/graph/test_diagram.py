"""`penstock diagram`: what the picture says is what the graph declares."""

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from cli.diagram.layout import draw
from cli.diagram.svg import cut
from cli.diagram.topology import topology
from cli.graph.model import Graph, Resource
from cli.graph.project import environments
from cli.main import main
from tests.support import picture
from tests.support.recordings import recorded

pytestmark = pytest.mark.xdist_group("recordings")

ROOT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"


def texts(picture: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(picture).iter(f"{SVG}text")]


def custom(type_: str, logical: str, parent: str | None = None, /, **inputs: Any) -> Resource:
    return Resource(type_, logical, parent, True, inputs)


def graph(*resources: Resource) -> Graph:
    return Graph("test", False, resources)


@pytest.mark.parametrize("environment", environments(ROOT))
def test_every_environment_has_a_picture_of_all_its_pools_and_routes(environment: str) -> None:
    declared = recorded(environment)
    found = texts(draw(topology(declared)))
    for manifest in declared.manifests():
        if manifest["kind"] in ("InferencePool", "Gateway"):
            assert manifest["metadata"]["name"] in found


def test_boxes_of_one_picture_do_not_overlap() -> None:
    for environment in environments(ROOT):
        drawn = ET.fromstring(draw(topology(recorded(environment))))
        boxes = [
            tuple(float(shape.attrib[name]) for name in ("x", "y", "width", "height"))
            for group in drawn.iter(f"{SVG}g")
            for shape in group.iter(f"{SVG}rect")
        ]
        assert len(boxes) > 3
        for index, (x, y, width, height) in enumerate(boxes):
            for other_x, other_y, other_width, other_height in boxes[:index]:
                apart = x >= other_x + other_width or other_x >= x + width
                assert apart or y >= other_y + other_height or other_y >= y + height, environment


def test_the_picture_in_the_documentation_is_the_one_that_is_drawn_now() -> None:
    assert picture.PICTURE.read_text() == picture.text(), "run `make golden`"


def test_weights_are_shown_as_shares() -> None:
    found = texts(draw(topology(recorded("local"))))
    assert "90 %" in found
    assert "10 %" in found


def test_endpoints_attachment_and_networks_are_shown_with_who_may_connect() -> None:
    parent = "penstock:index:PrivateEndpoint::apps"
    found = texts(
        draw(
            topology(
                graph(
                    custom(
                        "gcp:compute/forwardingRule:ForwardingRule",
                        "apps-endpoint",
                        parent,
                        name="apps-endpoint",
                        network="projects/apps/global/networks/apps-vpc",
                        project="apps",
                        allowPscGlobalAccess=True,
                    ),
                    custom("gcp:dns/recordSet:RecordSet", "apps-record", parent, name="llm.example.com."),
                    custom(
                        "gcp:compute/serviceAttachment:ServiceAttachment",
                        "publication",
                        name="inference",
                        consumerAcceptLists=[{"projectIdOrNum": "apps", "connectionLimit": 4}],
                    ),
                    custom("gcp:compute/network:Network", "vpc", name="producer"),
                    custom(
                        "gcp:compute/subnetwork:Subnetwork",
                        "proxy",
                        network="projects/p/global/networks/producer",
                        ipCidrRange="10.9.0.0/23",
                        purpose="REGIONAL_MANAGED_PROXY",
                    ),
                )
            )
        )
    )
    for line in ("VPC apps-vpc", "llm.example.com", "from any region", "apps ≤ 4", "10.9.0.0/23 proxy-only"):
        assert line in found


def test_node_pools_are_shown_with_machine_accelerators_and_limits() -> None:
    pool = custom(
        "gcp:container/nodePool:NodePool",
        "h200",
        name="h200",
        nodeConfig={
            "machineType": "a3-ultragpu-8g",
            "guestAccelerators": [{"type": "nvidia-h200-141gb", "count": 8}],
            "spot": True,
        },
        autoscaling={"totalMinNodeCount": 0, "totalMaxNodeCount": 4},
        placementPolicy={"type": "COMPACT"},
    )
    found = texts(draw(topology(graph(pool))))
    assert {"h200", "a3-ultragpu-8g", "8 x nvidia-h200-141gb", "0 to 4 nodes, spot, compact"} <= set(found)


def test_names_are_escaped_and_secrets_never_drawn() -> None:
    hostile = custom("gcp:compute/network:Network", "n", name="<script>&\"'")
    secret = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", "value": "s3cret"}
    hidden = custom("gcp:compute/network:Network", "m", name=secret)
    drawn = draw(topology(graph(hostile, hidden)))
    assert "<script>&\"'" in texts(drawn)
    assert "s3cret" not in drawn


def test_long_text_is_cut_and_whole_in_the_tooltip() -> None:
    name = "a-very-long-name-of-a-network-that-no-box-can-hold"
    drawn = draw(topology(graph(custom("gcp:compute/network:Network", "n", name=name))))
    assert name not in texts(drawn)
    assert name in [(element.text or "").split("\n")[0] for element in ET.fromstring(drawn).iter(f"{SVG}title")]
    assert cut("short", 100, 7) == "short"


def test_command_writes_a_file_or_says_why_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagram", "--root", str(ROOT), "--output", str(tmp_path / "local.svg")]) == 0
    assert "inference-gateway" in texts((tmp_path / "local.svg").read_text())
    assert main(["diagram", "--root", str(ROOT), "--output", str(tmp_path / "missing" / "local.svg")]) == 2
    assert "Name another file" in capsys.readouterr().err
