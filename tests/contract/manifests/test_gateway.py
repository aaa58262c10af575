"""The Gateway's listeners, certificates, address and namespace."""

from tests.support.arguments import declared, of_kind


class TestGateway:
    def listener(self, **changes):
        (listener,) = of_kind(declared("InferenceGateway", **changes), "Gateway")["spec"]["listeners"]
        return listener

    def test_https_with_each_kind_of_certificate(self):
        secret = self.listener(tls={"secret_names": ["s"]})
        assert secret["tls"]["certificateRefs"] == [{"group": "", "kind": "Secret", "name": "s"}]
        managed = self.listener(tls={"cert_manager_certs": ["a", "b"]})
        assert managed["tls"]["options"] == {"networking.gke.io/cert-manager-certs": "a,b"}
        shared = self.listener(tls={"pre_shared_certs": ["c"]})
        assert shared["tls"]["options"] == {"networking.gke.io/pre-shared-certs": "c"}
        assert [item["protocol"] for item in (secret, managed, shared)] == ["HTTPS"] * 3

    def test_plain_http_without_tls(self):
        listener = self.listener(tls=None)
        assert (listener["name"], listener["port"], listener["protocol"]) == ("http", 80, "HTTP")

    def test_is_awaited(self):
        annotations = of_kind(declared("InferenceGateway"), "Gateway")["metadata"]["annotations"]
        assert annotations["pulumi.com/waitFor"] == "condition=Programmed"
        assert int(annotations["pulumi.com/timeoutSeconds"]) > 0

    def test_takes_a_reserved_address_by_name(self):
        spec = of_kind(declared("InferenceGateway", address_name="vip"), "Gateway")["spec"]
        assert spec["addresses"] == [{"type": "NamedAddress", "value": "vip"}]

    def test_trap_8_a_redirect_is_a_second_listener_on_one_shared_address(self):
        graph = declared("InferenceGateway", redirect_http=True, address_name="vip")
        gateway = of_kind(graph, "Gateway")["spec"]
        assert [(item["name"], item["port"]) for item in gateway["listeners"]] == [("https", 443), ("http", 80)]
        assert len(gateway["addresses"]) == 1
        route = of_kind(graph, "HTTPRoute", "gw-redirect")["spec"]
        assert [ref["sectionName"] for ref in route["parentRefs"]] == ["http"]
        (rule,) = route["rules"]
        assert rule["filters"][0]["requestRedirect"] == {"scheme": "https", "statusCode": 301}
        assert "backendRefs" not in rule

    def test_namespace_admits_only_restricted_pods(self):
        labels = of_kind(declared("InferenceGateway"), "Namespace")["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
