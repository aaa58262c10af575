"""The API server that other tests rely on: schemas are enforced, and so are roles."""

import time

import httpx
import pytest

from tests.support.engine.apiserver import CRDS, ApiServer

pytestmark = pytest.mark.engine


@pytest.mark.skipif(not CRDS.is_dir(), reason="schemas of third parties are kept beside the repository, not in it")
def test_refuses_a_custom_resource_that_its_schema_forbids(api_server: ApiServer) -> None:
    rule = {"backendRefs": [{"name": "pool", "port": 80, "weight": 1_000_001}]}
    route = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "r"}}
    with pytest.raises(httpx.HTTPStatusError) as refused:
        api_server.apply({**route, "spec": {"rules": [rule]}})
    assert "spec.rules[0].backendRefs[0].weight" in refused.value.response.json()["message"]


def test_a_service_account_may_do_only_what_its_role_allows(api_server: ApiServer) -> None:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader", "namespace": "default"}}
    api_server.apply(account)
    token = api_server.service_account_token("default", "reader")
    with api_server.client(token) as client:
        assert client.get("/api/v1/namespaces/default/pods").status_code == 403

    meta = {"name": "reader", "namespace": "default"}
    group = "rbac.authorization.k8s.io"
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]
    api_server.apply({"apiVersion": f"{group}/v1", "kind": "Role", "metadata": meta, "rules": rules})
    binding = {"apiVersion": f"{group}/v1", "kind": "RoleBinding", "metadata": meta}
    reference = {"apiGroup": group, "kind": "Role", "name": "reader"}
    subject = {"kind": "ServiceAccount", "name": "reader", "namespace": "default"}
    api_server.apply({**binding, "roleRef": reference, "subjects": [subject]})

    with api_server.client(token) as client:
        deadline = time.monotonic() + 10  # the authorizer learns of roles by a watch
        while client.get("/api/v1/namespaces/default/pods").status_code != 200:
            assert time.monotonic() < deadline, "the role never counted"
            time.sleep(0.05)
        assert client.get("/api/v1/namespaces/default/secrets").status_code == 403
