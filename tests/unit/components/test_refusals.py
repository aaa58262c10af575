"""What every component refuses: the path it names, and that everything wrong is named at once."""

import penstock
import pytest

from tests.support.arguments import CALLOUT, IMAGE, args_of, declared, problems


def scorers(*kinds):
    return {"image": IMAGE, "scorers": [{"type": kind} for kind in kinds]}


def callouts(*changes):
    return {"callouts": [{**CALLOUT, **change} for change in changes]}


def google(**changes):
    given = {
        "name": "armor",
        "google_api_service": "modelarmor.us-central1.rep.googleapis.com",
        "events": ["RequestBody"],
    }
    return {"callouts": [{**given, **changes}]}


FOUR = [{"name": f"c{number}"} for number in range(4)]

REFUSED = [
    ("InferenceGateway", {"name": "g" * 55}, "args.name"),
    ("InferenceGateway", {"name": "Gateway"}, "args.name"),
    ("InferenceGateway", {"namespace": "a.b"}, "args.namespace"),
    ("InferenceGateway", {"hostname": "https://x"}, "args.hostname"),
    ("InferenceGateway", {"tls": {}}, "args.tls"),
    ("InferenceGateway", {"tls": {"secret_names": []}}, "args.tls"),
    ("InferenceGateway", {"tls": {"secret_names": ["a"], "cert_manager_certs": ["b"]}}, "args.tls"),
    ("InferenceGateway", {"tls": {"cert_manager_certs": ["a,b"]}}, "args.tls.cert_manager_certs[0]"),
    ("InferenceGateway", {"tls": None, "ssl_policy": "modern"}, "args.ssl_policy"),
    ("InferenceGateway", {"redirect_http": True}, "args.redirect_http"),
    ("InferenceGateway", {"redirect_http": True, "tls": None, "address_name": "vip"}, "args.redirect_http"),
    ("BodyRouter", {"stream_timeout_s": 0}, "args.stream_timeout_s"),
    ("BodyRouter", {"models": []}, "args.models"),
    ("BodyRouter", {"models": [{"name": "m"}, {"name": "m"}]}, "args.models[1].name"),
    ("BodyRouter", {"models": [{"name": "m", "adapters": ["m"]}]}, "args.models[0].adapters[0]"),
    ("BodyRouter", {"models": [{"name": "m\r\nx: y"}]}, "args.models[0].name"),
    ("BodyRouter", {"models": [{"name": "m"}], "aliases": [{"name": "m", "model": "m"}]}, "args.aliases[0].name"),
    ("BodyRouter", {"models": [{"name": "m"}], "aliases": [{"name": "a", "model": "b"}]}, "args.aliases[0].model"),
    (
        "BodyRouter",
        {"models": [{"name": "m"}], "prompt_routes": [{"name": "r", "model": "m", "when": "true", "to": "b"}]},
        "args.prompt_routes[0].to",
    ),
    (
        "BodyRouter",
        {"models": [{"name": "m"}], "classifiers": [{"model": "m", "url": "ftp://x"}]},
        "args.classifiers[0].url",
    ),
    ("BodyRouter", {"image": "penstock/services"}, "args.image"),
    ("BodyRouter", {"image": "penstock/services:latest"}, "args.image"),
    ("BodyRouter", {"image": "registry.example:5000/services"}, "args.image"),
    ("BodyRouter", {"replicas": 0}, "args.replicas"),
    ("BodyRouter", {"max_body_bytes": 10}, "args.max_body_bytes"),
    ("BodyRouter", {"max_body_bytes": 64 * 1024 * 1024 + 1}, "args.max_body_bytes"),
    ("BodyRouter", {"allow_client_headers": ["a b"]}, "args.allow_client_headers[0]"),
    ("BodyRouter", {"models": [{"name": "m" * 257}]}, "args.models[0].name"),
    ("BodyRouter", {"log_level": "loud"}, "args.log_level"),
    ("BodyRouter", {"cpu": "half"}, "args.cpu"),
    ("ModelReplicaSet", {"name": "r" * 55}, "args.name"),
    ("ModelReplicaSet", {"model": "..."}, "args.model"),
    ("ModelReplicaSet", {"source": "--trust-remote-code"}, "args.source"),
    ("ModelReplicaSet", {"source": "a b"}, "args.source"),
    ("ModelReplicaSet", {"replicas": -1}, "args.replicas"),
    ("ModelReplicaSet", {"accelerator": {"count": 0}}, "args.accelerator.count"),
    ("ModelReplicaSet", {"hf_token_secret": {"name": "Hub Token"}}, "args.hf_token_secret.name"),
    ("ModelReplicaSet", {"adapters": [{"name": "m1", "source": "a/b"}]}, "args.adapters[0].name"),
    ("ModelReplicaSet", {"adapters": [{"name": "a=b", "source": "a/b"}]}, "args.adapters[0].name"),
    ("ModelReplicaSet", {"adapters": [{"name": "a", "source": "{}"}]}, "args.adapters[0].source"),
    ("ModelReplicaSet", {"extra_args": ["--port=1"]}, "args.extra_args[0]"),
    ("ModelReplicaSet", {"extra_args": ["--served_model_name=x"]}, "args.extra_args[0]"),
    ("ModelReplicaSet", {"extra_args": ["--serv=x"]}, "args.extra_args[0]"),
    ("ModelReplicaSet", {"extra_args": ["--no-enable-lora"]}, "args.extra_args[0]"),
    ("ModelReplicaSet", {"extra_args": ["--api-key=s"]}, "args.extra_args[0]"),
    ("ModelReplicaSet", {"extra_args": ["--hf-token=s"]}, "args.extra_args[0]"),
    ("ModelReplicaSet", {"extra_args": ["other/model"]}, "args.extra_args[0]"),
    ("ModelReplicaSet", {"extra_args": ["-tp=2"]}, "args.extra_args[0]"),
    ("ModelReplicaSet", {"extra_args": ["--seed=1", "--seed=2"]}, "args.extra_args[1]"),
    ("InferencePool", {"name": "p" * 55}, "args.name"),
    ("InferencePool", {"timeout_s": 0}, "args.timeout_s"),
    ("InferencePool", {"startup_timeout_s": 5}, "args.startup_timeout_s"),
    ("InferencePool", {"failure_mode": "failopen"}, "args.failure_mode"),
    ("InferencePool", {"log_sample_rate": 1.5}, "args.log_sample_rate"),
    ("InferencePool", {"target_ports": []}, "args.target_ports"),
    ("InferencePool", {"target_ports": [8000, 8000]}, "args.target_ports[1]"),
    ("InferencePool", {"target_ports": [8000, 8001]}, "args.target_ports"),
    ("InferencePool", {"zone_count": 51}, "args.target_ports"),
    ("InferencePool", {"objectives": [{"name": "X", "priority": 1}]}, "args.objectives[0].name"),
    ("InferencePool", {"objectives": [{"name": "x", "priority": 2**31}]}, "args.objectives[0].priority"),
    ("InferencePool", {"objective_api": "v2"}, "args.objective_api"),
    ("InferencePool", {"picker": {"image": "x"}}, "args.picker.image"),
    ("InferencePool", {"picker": scorers("queue")}, "args.picker.scorers[0].type"),
    ("InferencePool", {"picker": scorers("queue-scorer", "queue-scorer")}, "args.picker.scorers[1].type"),
    ("ModelRoute", {"pools": []}, "args.pools"),
    ("ModelRoute", {"pools": [{"name": "p"}, {"name": "p"}]}, "args.pools[1].name"),
    ("ModelRoute", {"pools": [{"name": "p", "weight": 0}]}, "args.pools"),
    ("ModelRoute", {"pools": [{"name": "p", "weight": -1}]}, "args.pools[0].weight"),
    ("ModelRoute", {"pools": [{"name": "p", "weight": 1_000_001}]}, "args.pools[0].weight"),
    ("ModelRoute", {"pools": [{"name": f"p{number}"} for number in range(17)]}, "args.pools"),
    ("ModelRoute", {"paths": ["/v1"]}, "args.paths[0]"),
    ("ModelRoute", {"paths": ["/v1/"]}, "args.paths[0]"),
    ("ModelRoute", {"paths": ["/v1/load_lora_adapter"]}, "args.paths[0]"),
    ("ModelRoute", {"paths": ["/metrics"]}, "args.paths[0]"),
    ("ModelRoute", {"paths": []}, "args.paths"),
    ("ModelRoute", {"objective": "Not A Name"}, "args.objective"),
    ("Extensions", {"match": "x" * 513}, "args.match"),
    ("Extensions", callouts(*FOUR), "args.callouts"),
    ("Extensions", callouts({}, {}), "args.callouts[1].name"),
    ("Extensions", callouts({"service_namespace": "other"}), "args.callouts[0].service_namespace"),
    ("Extensions", callouts({"timeout_ms": 9}), "args.callouts[0].timeout_ms"),
    ("Extensions", callouts({"timeout_ms": 10_001}), "args.callouts[0].timeout_ms"),
    ("Extensions", callouts({"events": []}), "args.callouts[0].events"),
    ("Extensions", callouts({"events": ["RequestHeader"]}), "args.callouts[0].events[0]"),
    ("Extensions", callouts({"events": ["RequestBody"]}), "args.callouts[0].request_body_mode"),
    ("Extensions", callouts({"response_body_mode": "Buffered"}), "args.callouts[0].response_body_mode"),
    ("Extensions", callouts({"port": None}), "args.callouts[0].port"),
    ("Extensions", callouts({"service": None}), "args.callouts[0]"),
    ("Extensions", callouts({"authority": "a b"}), "args.callouts[0].authority"),
    ("Extensions", callouts({"metadata": {f"k{number}": "v" for number in range(17)}}), "args.callouts[0].metadata"),
    ("Extensions", callouts({"metadata": {"k" * 64: "v"}}), f"args.callouts[0].metadata.{'k' * 64}"),
    ("Extensions", callouts({"metadata": {"k": "v" * 1024}}), "args.callouts[0].metadata.k"),
    ("Extensions", callouts({"metadata": {"k": ""}}), "args.callouts[0].metadata.k"),
    ("Extensions", callouts({"metadata": {"k": "a\\b"}}), "args.callouts[0].metadata.k"),
    ("Extensions", google(google_api_service="modelarmor"), "args.callouts[0].google_api_service"),
    ("Extensions", google(authority="x"), "args.callouts[0].authority"),
    ("Extensions", google(request_body_mode="Streamed"), "args.callouts[0].request_body_mode"),
    ("Extensions", google(service="also"), "args.callouts[0]"),
]


@pytest.mark.parametrize(("component", "changes", "path"), REFUSED, ids=lambda value: str(value)[:60])
def test_refused(component, changes, path):
    found = problems(component, **changes)
    assert path in [error.path for error in found]
    assert all(error.expected and error.fix and not error.fix.endswith(".") for error in found)


@pytest.mark.parametrize(
    ("component", "changes"),
    [
        ("InferenceGateway", {}),
        ("InferenceGateway", {"tls": None}),
        ("InferenceGateway", {"redirect_http": True, "address_name": "vip"}),
        (
            "InferenceGateway",
            {"tls": {"cert_manager_certs": ["a", "b"]}, "hostname": "*.example.com", "ssl_policy": "p"},
        ),
        ("BodyRouter", {"image": "registry.example:5000/services@sha256:" + "0" * 64}),
        ("ModelReplicaSet", {"extra_args": ["--dtype=bfloat16", "--enable-prefix-caching"], "replicas": 0}),
        ("InferencePool", {"zone_count": 50, "objectives": [{"name": "batch", "priority": -10}]}),
        ("ModelRoute", {"pools": [{"name": "p", "weight": 0}, {"name": "q", "weight": 1_000_000}]}),
        ("ModelRoute", {"paths": ["/v1/score", "/v1/audio/transcriptions"]}),
        ("Extensions", callouts(*FOUR[:3])),
        ("Extensions", callouts({"metadata": {"k": "v" * 1023, "j": '[{"a": "b, c"}]'}})),
        ("Extensions", google()),
    ],
    ids=lambda value: str(value)[:60],
)
def test_accepted(component, changes):
    assert problems(component, **changes) == []


def test_negs_are_counted_by_ports_and_zones():
    found = problems("InferencePool", target_ports=list(range(8000, 8008)), zone_count=7)
    assert any("8 x 7" in error.expected for error in found)
    found = problems("InferencePool", target_ports=list(range(8000, 8008)), zone_count=6)
    assert not any("network endpoint groups" in error.expected for error in found)


@pytest.mark.parametrize("component", ["InferenceGateway", "Extensions", "ModelReplicaSet"])
def test_nothing_is_registered_when_arguments_are_refused(component):
    with pytest.raises(penstock.ConfigErrors):
        declared(component, namespace="Not A Namespace")
    registered = []

    def program():
        try:
            getattr(penstock, component)("it", args_of(component, namespace="Not A Namespace"))
        except penstock.ConfigErrors:
            registered.append("refused")

    from cli.graph.recorder import record

    assert record(program, "test").resources == ()
    assert registered == ["refused"]


def test_all_errors_of_a_component_come_at_once():
    with pytest.raises(penstock.ConfigErrors) as caught:
        declared("ModelReplicaSet", namespace="A", model="...", replicas=-1, extra_args=["--port=1", "x"])
    paths = [error.path for error in caught.value.errors]
    assert paths == ["it.namespace", "it.model", "it.replicas", "it.extra_args[0]", "it.extra_args[1]"]
