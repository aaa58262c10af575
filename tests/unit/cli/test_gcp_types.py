"""Google Cloud resources against the provider's typed arguments."""

import pytest

from cli.graph import gcp_types
from cli.graph.model import UNKNOWN, Graph, Resource
from cli.graph.wire import SECRET, SIGNATURE

ATTACHMENT = "gcp:compute/serviceAttachment:ServiceAttachment"
GOOD = {
    "connectionPreference": "ACCEPT_MANUAL",
    "enableProxyProtocol": False,
    "natSubnets": ["projects/p/regions/r/subnetworks/s"],
    "targetService": UNKNOWN,
    "consumerAcceptLists": [{"connectionLimit": 4, "projectIdOrNum": "p"}],
}


def resource(inputs, token=ATTACHMENT, **options):
    return Resource(token, "x", None, True, inputs, options=options)


def found(changes, base=GOOD, token=ATTACHMENT):
    inputs = {key: value for key, value in (base | changes).items() if value is not ...}
    return [(error.path, error.expected) for error in gcp_types.check(token, inputs)]


def test_right_inputs_are_ok():
    assert gcp_types.check(ATTACHMENT, GOOD) == []
    assert gcp_types.verdict(resource(GOOD)).status == "ok"


def test_a_misspelt_key_fails_and_the_right_one_is_suggested():
    (error,) = gcp_types.check(ATTACHMENT, GOOD | {"natSubnet": []})
    assert error.path == "natSubnet"
    assert "natSubnets" in error.fix
    assert gcp_types.verdict(resource(GOOD | {"natSubnet": []})).status == "invalid"


def test_a_misspelt_nested_key_fails_by_its_path():
    lists = [{"connectionLimit": 4, "project_id_or_number": "p"}]
    (error,) = gcp_types.check(ATTACHMENT, GOOD | {"consumerAcceptLists": lists})
    assert error.path == "consumerAcceptLists[0].project_id_or_number"
    assert "projectIdOrNum" in error.fix


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"targetService": ...}, ("targetService", "a string")),
        ({"natSubnets": "one"}, ("natSubnets", "a list")),
        ({"natSubnets": [1]}, ("natSubnets[0]", "a string")),
        ({"enableProxyProtocol": "false"}, ("enableProxyProtocol", "true or false")),
        ({"enableProxyProtocol": 0}, ("enableProxyProtocol", "true or false")),
        ({"propagatedConnectionLimit": "3"}, ("propagatedConnectionLimit", "an integer")),
        ({"propagatedConnectionLimit": True}, ("propagatedConnectionLimit", "an integer")),
        ({"propagatedConnectionLimit": 1.5}, ("propagatedConnectionLimit", "an integer")),
        ({"consumerAcceptLists": [{}]}, ("consumerAcceptLists[0].connectionLimit", "an integer")),
        ({"tunnelingConfig": []}, ("tunnelingConfig", "an object")),
    ],
    ids=lambda value: str(value)[:60],
)
def test_wrong_kinds_and_missing_values_fail(changes, expected):
    assert found(changes) == [expected]


def test_maps_of_strings_are_checked_inside():
    token, base = "gcp:storage/bucket:Bucket", {"location": "EU"}
    assert found({"labels": {"part-of": "penstock"}}, base, token) == []
    assert found({"labels": {"part-of": 1}}, base, token) == [("labels.part-of", "a string")]


def test_unknown_secret_and_asset_values_are_taken():
    token, base = "gcp:storage/bucketObject:BucketObject", {"bucket": UNKNOWN}
    asset = {SIGNATURE: "c44067f5952c0a294b673a41bacd8c17", "text": "x"}
    assert found({"source": asset}, base, token) == []
    assert found({"content": {SIGNATURE: SECRET, "value": "hush"}}, base, token) == []
    (error,) = gcp_types.check(token, base | {"content": {SIGNATURE: SECRET, "value": 5}})
    assert (error.path, error.value) == ("content", "[secret]")


def test_deep_objects_of_the_cluster_are_walked():
    token = "gcp:container/cluster:Cluster"
    inputs = {
        "controlPlaneEndpointsConfig": {"dnsEndpointConfig": {"allowExternalTraffic": True, "enableK8STokens": 1}}
    }
    (error,) = gcp_types.check(token, inputs)
    assert error.path == "controlPlaneEndpointsConfig.dnsEndpointConfig.enableK8STokens"


def test_a_type_that_the_sdk_does_not_know_has_no_schema():
    assert gcp_types.verdict(resource({}, "gcp:compute/nothing:Nothing")).status == "no-schema"
    with pytest.raises(LookupError, match="gcp:compute/nothing:Nothing"):
        gcp_types.check("gcp:compute/nothing:Nothing", {})


def test_only_declared_resources_of_the_provider_are_judged():
    others = (
        Resource("kubernetes:core/v1:Service", "k", None, True, {}),
        Resource("pulumi:providers:gcp", "p", None, True, {}),
        resource({}, read="id"),
    )
    graph = Graph("x", False, (*others, resource(GOOD)))
    assert [verdict.resource.type for verdict in gcp_types.judge(graph)] == [ATTACHMENT]
