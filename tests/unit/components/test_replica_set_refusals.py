"""What `ModelReplicaSet` and `InferencePool` refuse of nodes, weights, autoscaling and picker profiles."""

import penstock
import pytest

from tests.support.arguments import IMAGE, args_of, problems

H200 = {"type": "nvidia-h200-141gb", "count": 8}
L4 = {"type": "nvidia-l4", "count": 1}
V6E, V7 = {"type": "tpu-v6e-slice", "count": 8}, {"type": "tpu7x", "count": 4}
WEIGHTS = {"bucket": "models", "project": "p", "project_number": "1"}


def group(**changes):
    return {"nodes": 2, "accelerator": H200} | changes


def weights(**changes):
    return {"source": None, "weights": WEIGHTS | changes}


def scaled(**changes):
    return {"replicas": None, "autoscaling": {"max": 4} | changes}


def keda(**changes):
    return scaled(by="keda", project="p", **changes)


SET_REFUSED = [
    (group(nodes=0), "nodes", 0, "nodes from 1 to 64", "of at least 1"),
    (group(nodes=65), "nodes", 65, "nodes from 1 to 64", "of at most 64"),
    (group(tensor_parallel=8, pipeline_parallel=1), "tensor_parallel", 8, "16: 2 node(s) x 8 GPU(s)", "Use 8 x 2"),
    (group(tensor_parallel=3), "tensor_parallel", 3, "of 16", "or change `nodes`"),
    (group(pipeline_parallel=0), "pipeline_parallel", 0, "of 16", "or change `nodes`"),
    (
        group(nodes=3, tensor_parallel=12, pipeline_parallel=2),
        "tensor_parallel",
        12,
        "a divisor or a multiple of the 8 GPUs",
        "uneven part",
    ),
    ({"tensor_parallel": 2}, "tensor_parallel", 2, "1: 1 node(s) x 1 GPU(s)", "Use 1 x 1"),
    ({"topology": "kubernetes.io/hostname"}, "topology", "kubernetes.io/hostname", "more than 1", "raise `nodes`"),
    ({"rdma": {"mode": "roce"}}, "rdma", {"mode": "roce"}, "`nodes` of more than 1", "Remove it"),
    (group(rdma={"mode": "ib"}), "rdma.mode", "ib", "`roce` or `dranet`", "roce"),
    (group(rdma={"mode": "roce", "rails": 5}), "rdma.rails", 5, "4 or 8", "8 for a3-ultragpu-8g"),
    (group(rdma={"mode": "roce", "rails": 4}), "rdma.rails", 4, "the 8 RDMA NICs of the machine", "Use that number"),
    (
        group(accelerator={"type": "nvidia-h100-mega-80gb", "count": 8}, rdma={"mode": "dranet"}),
        "rdma",
        "dranet",
        "none with nvidia-h100-mega-80gb has",
        "Remove it",
    ),
    (
        group(accelerator={"type": "nvidia-h200-141gb", "count": 4}),
        "accelerator.count",
        4,
        "all GPUs of a machine with nvidia-h200-141gb: 8",
        "whole machines",
    ),
    ({"accelerator": V6E, "nodes": 2}, "nodes", 2, "by Ray only", "Use a larger machine, or GPUs"),
    (
        {"accelerator": V6E | {"count": 2}},
        "accelerator.count",
        2,
        "tpu-v6e-slice: 1 or 4 or 8",
        "all TPU chips of a node",
    ),
    (
        {"accelerator": {"type": "tpu7x"}},
        "accelerator.count",
        1,
        "all chips of a machine with tpu7x: 4",
        "all TPU chips",
    ),
    ({"accelerator": V7, "tensor_parallel": 3}, "tensor_parallel", 3, "8: 1 node(s) x 8 TPU device(s)", "Use 8 x 1"),
    ({"accelerator": V6E, "rdma": {"mode": "roce"}}, "rdma", {"mode": "roce"}, "`nodes` of more than 1", "Remove it"),
    (
        {"accelerator": {"type": "tpu-v6e", "count": 8}},
        "accelerator.type",
        "tpu-v6e",
        "a TPU type of the catalogue",
        "Did you mean `tpu-v6e-slice`",
    ),
    ({"accelerator": {"count": 17}}, "accelerator.count", 17, "from 1 to 16", "at most 16"),
    ({"source": None}, "source", None, "exactly one of `source` and `weights`", "Name a model of the hub"),
    ({"weights": WEIGHTS}, "source", "example/m1", "exactly one of `source` and `weights`", "Remove one"),
    (weights(bucket="gs://models"), "weights.bucket", "gs://models", "the name of a bucket", "without `gs://`"),
    (weights(method="nfs"), "weights.method", "nfs", "`fuse` or `streamer`", "Use one of"),
    (weights(path="/a/"), "weights.path", "/a/", "a folder of the bucket", "without slashes"),
    (weights(path="a/../b"), "weights.path", "a/../b", "a folder of the bucket", "without slashes"),
    (weights(path='a"b'), "weights.path", 'a"b', "a folder of the bucket", "without slashes"),
    (weights(path="a,allow_other"), "weights.path", "a,allow_other", "a folder of the bucket", "without slashes"),
    (weights(adapters_path=""), "weights.adapters_path", "", "a folder of the bucket", "without slashes"),
    (weights(project_number="p"), "weights.project_number", "p", "the project's number", "as a string"),
    (scaled() | {"replicas": 2}, "replicas", 2, "the autoscaler sets it", "remove `autoscaling`"),
    (scaled(max=0), "autoscaling.max", 0, "from 1 to 1000", "of at least 1"),
    (scaled(min=5), "autoscaling.min", 5, "at most `max`, 4", "raise `max`"),
    (scaled(min=0), "autoscaling.min", 0, "without a replica nothing reports a queue", "by: keda"),
    (scaled(by="cron"), "autoscaling.by", "cron", "`hpa` or `keda`", "Use one of"),
    (scaled(queue_length=0), "autoscaling.queue_length", 0, "from 1 to 10000", "of at least 1"),
    (scaled(scale_down_window_s=3601), "autoscaling.scale_down_window_s", 3601, "from 0 to 3600", "at most 3600"),
    (scaled(cooldown_s=600), "autoscaling.cooldown_s", 600, "scaling to zero", "`min: 0`"),
    (keda(activation_query="up"), "autoscaling.activation_query", "up", "scaling to zero", "`min: 0`"),
    (scaled(by="keda"), "autoscaling.project", None, "a project", "metrics go to"),
    (keda(prometheus="prometheus:9090"), "autoscaling.prometheus", "prometheus:9090", "the URL", "http://"),
    (keda(cluster='c",job="x'), "autoscaling.cluster", 'c",job="x', "a DNS label", "Rename it"),
    (scaled() | {"monitoring": False}, "monitoring", False, "metrics", "remove `autoscaling`"),
    ({"extra_args": ["--nnodes=2"]}, "extra_args[0]", "--nnodes=2", "`--nnodes`", "nodes"),
    ({"extra_args": ["--load-format=auto"]}, "extra_args[0]", "--load-format=auto", "`--load-format`", "weights"),
]

POOL_REFUSED = [
    ({"picker": {}}, "picker.image", None, "the image of Penstock's services", "no default"),
    ({"picker": {"profile": "gaie-1.4"}}, "picker.profile", "gaie-1.4", "one of penstock", "Did you mean"),
    (
        {"picker": {"profile": "gaie-1.5", "discovery": "dns"}},
        "picker.discovery",
        "dns",
        "reads the Kubernetes API",
        "Remove it",
    ),
    (
        {"picker": {"image": IMAGE, "discovery": "k8s"}},
        "picker.discovery",
        "k8s",
        "`dns` or `kubernetes`",
        "Use one of",
    ),
    ({"picker": {"image": IMAGE, "metrics_auth": True}}, "picker.metrics_auth", True, "an upstream profile", "Remove"),
    ({"picker": {"profile": "gaie-1.5", "image": "epp"}}, "picker.image", "epp", "pinned by tag", "Append a version"),
    (
        {"picker": {"profile": "gaie-1.5"}, "objective_api": "llm-d-0.10"},
        "objective_api",
        "llm-d-0.10",
        "reads, inference.networking.x-k8s.io/v1alpha2",
        "Remove it",
    ),
]

REFUSED = [("ModelReplicaSet", *row) for row in SET_REFUSED] + [("InferencePool", *row) for row in POOL_REFUSED]


@pytest.mark.parametrize(("component", "changes", "path", "value", "expected", "fix"), REFUSED)
def test_refused(component, changes, path, value, expected, fix):
    found = {error.path: error for error in problems(component, **changes)}
    assert f"args.{path}" in found
    error = found[f"args.{path}"]
    assert error.value == value
    assert expected in error.expected
    assert fix in error.fix


ACCEPTED = [
    ("ModelReplicaSet", group()),
    ("ModelReplicaSet", group(rdma={"mode": "roce"}, topology="cloud.google.com/gce-topology-subblock")),
    ("ModelReplicaSet", group(rdma={"mode": "dranet"}, tensor_parallel=16)),
    ("ModelReplicaSet", group(nodes=4, accelerator={"type": "nvidia-gb200", "count": 4}, tensor_parallel=8)),
    ("ModelReplicaSet", group(accelerator={"type": "nvidia-gb200", "count": 4}, rdma={"mode": "dranet"})),
    ("ModelReplicaSet", group(accelerator={"type": "a-type-that-nobody-knows", "count": 3})),
    ("ModelReplicaSet", {"accelerator": L4 | {"count": 4}, "tensor_parallel": 2, "pipeline_parallel": 2}),
    ("ModelReplicaSet", {"accelerator": V7, "tensor_parallel": 4, "pipeline_parallel": 2}),
    ("ModelReplicaSet", {"accelerator": {"type": "tpu-v5-lite-podslice", "count": 1}}),
    ("ModelReplicaSet", {"accelerator": V6E, "adapters": [{"name": "l1", "source": "a/l1"}]} | scaled()),
    ("ModelReplicaSet", {"accelerator": V6E} | weights(method="streamer")),
    ("ModelReplicaSet", weights(path="a/b-c_d.e", adapters_path="lora")),
    ("ModelReplicaSet", weights(method="streamer", grant=False)),
    ("ModelReplicaSet", scaled()),
    ("ModelReplicaSet", keda(min=0, cooldown_s=600, activation_query="up")),
    ("ModelReplicaSet", {"replicas": None}),
    ("InferencePool", {"picker": {"profile": "gaie-1.5"}, "target_ports": [8000, 8001]}),
    ("InferencePool", {"picker": {"profile": "llm-d-router-0.10", "scorers": [{"type": "a-scorer-of-theirs"}]}}),
    ("InferencePool", {"picker": {"image": IMAGE, "discovery": "kubernetes"}, "leader_only": True}),
]


@pytest.mark.parametrize(("component", "changes"), ACCEPTED)
def test_accepted(component, changes):
    assert problems(component, **changes) == []


def test_everything_wrong_is_said_at_once():
    args = args_of("ModelReplicaSet", nodes=0, autoscaling={"max": 0}, weights=WEIGHTS | {"method": "nfs"})
    paths = [error.path for error in penstock.ModelReplicaSet.problems(args, "it")]
    assert {"it.nodes", "it.autoscaling.max", "it.weights.method", "it.replicas", "it.source"} <= set(paths)
