"""Replicas of several nodes against what is known to go wrong on GKE: groups, their sizes, RDMA."""

import json

import penstock
import pytest

from tests.support.arguments import declared, of_kind
from tests.support.groups import GROUP, container, group, templates


class TestMultiNode:
    def test_nodes_meet_at_the_leader_without_ray(self):
        leader, worker = templates()
        shared = {
            "--distributed-executor-backend=mp",
            "--nnodes=$(LWS_GROUP_SIZE)",
            "--master-addr=$(LWS_LEADER_ADDRESS)",
            "--tensor-parallel-size=8",
            "--pipeline-parallel-size=2",
        }
        assert shared | {"--node-rank=0"} <= set(container(leader)["args"])
        assert shared | {"--node-rank=$(LWS_WORKER_INDEX)", "--headless"} <= set(container(worker)["args"])
        assert "--headless" not in container(leader)["args"]
        assert container(leader)["command"] == container(worker)["command"] == ["vllm", "serve", "example/m1"]

    def test_adapters_still_come_last(self):
        for template in templates(adapters=[{"name": "l", "source": "a/l"}]):
            assert container(template)["args"][-2:] == ["--lora-modules", "l=a/l"]

    def test_only_the_leader_serves_and_is_probed(self):
        leader, worker = map(container, templates())
        assert {"startupProbe", "readinessProbe", "livenessProbe", "ports"} <= set(leader)
        assert not {"startupProbe", "readinessProbe", "livenessProbe", "ports"} & set(worker)

    def test_workers_stay_while_their_leader_drains(self):
        for template in templates(drain_timeout_s=120):
            assert container(template)["lifecycle"]["preStop"]["sleep"]["seconds"] == 120
            assert template["spec"]["terminationGracePeriodSeconds"] > 120

    def test_a_group_lives_and_is_replaced_as_a_whole(self):
        spec = group(replicas=3)["spec"]
        assert (spec["replicas"], spec["leaderWorkerTemplate"]["size"]) == (3, 2)
        assert spec["leaderWorkerTemplate"]["restartPolicy"] == "RecreateGroupOnPodRestart"
        assert spec["rolloutStrategy"] == {
            "type": "RollingUpdate",
            "rollingUpdateConfiguration": {"maxSurge": 0, "maxUnavailable": 1},
        }

    def test_workers_start_beside_their_leader_which_waits_for_them(self):
        assert group()["spec"]["startupPolicy"] == "LeaderCreated"

    def test_budget_covers_whole_groups_and_never_blocks_for_good(self):
        spec = of_kind(declared("ModelReplicaSet", **GROUP), "PodDisruptionBudget")["spec"]
        for template in templates():
            assert spec["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        assert spec["maxUnavailable"] == 1

    def test_topology_is_an_annotation_of_the_set(self):
        label = "cloud.google.com/gce-topology-subblock"
        assert group(topology=label)["metadata"]["annotations"][
            "leaderworkerset.sigs.k8s.io/exclusive-topology"
        ] == label  # fmt: skip

    def test_is_awaited_until_it_is_available(self):
        annotations = group(startup_timeout_s=1200)["metadata"]["annotations"]
        assert annotations["pulumi.com/waitFor"] == "condition=Available"
        assert int(annotations["pulumi.com/timeoutSeconds"]) > 1200

    @pytest.mark.parametrize(
        ("changes", "flags"),
        [
            ({"tensor_parallel": 16}, {"--tensor-parallel-size=16"}),
            ({"pipeline_parallel": 4}, {"--tensor-parallel-size=4", "--pipeline-parallel-size=4"}),
            (
                {"tensor_parallel": 4, "pipeline_parallel": 4},
                {"--tensor-parallel-size=4", "--pipeline-parallel-size=4"},
            ),
        ],
    )
    def test_parallel_sizes_complete_each_other(self, changes, flags):
        found = {arg for arg in container(templates(**changes)[0])["args"] if "-parallel-size" in arg}
        assert found == flags


class TestRdma:
    def test_roce_gives_every_pod_the_interfaces_of_its_node(self):
        for template in templates():
            names = [
                item["network"]
                for item in json.loads(template["metadata"]["annotations"]["networking.gke.io/interfaces"])
            ]
            assert names == ["default", "gvnic-1", *(f"rdma-{rail}" for rail in range(8))]
            assert "resourceClaims" not in template["spec"]

    def test_dranet_claims_them(self):
        for template in templates(rdma={"mode": "dranet"}):
            assert template["spec"]["resourceClaims"] == [{"name": "rdma", "resourceClaimTemplateName": "rdma"}]
            assert container(template)["resources"]["claims"] == [{"name": "rdma"}]
            assert "networking.gke.io/interfaces" not in template["metadata"].get("annotations", {})

    def test_memory_is_locked_by_a_user_for_whom_the_capability_counts(self):
        for template in templates():
            assert container(template)["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["IPC_LOCK"]}
            assert template["spec"]["securityContext"]["runAsUser"] == 0
            assert container(template)["securityContext"]["readOnlyRootFilesystem"] is True
        for template in templates(rdma=None):
            assert container(template)["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert template["spec"]["securityContext"]["runAsNonRoot"] is True

    def test_control_traffic_keeps_to_the_pods_first_interface(self):
        for template in templates():
            env = {item["name"]: item for item in container(template)["env"]}
            assert (env["GLOO_SOCKET_IFNAME"]["value"], env["NCCL_SOCKET_IFNAME"]["value"]) == ("eth0", "eth0")
            assert env["VLLM_HOST_IP"]["valueFrom"] == {"fieldRef": {"fieldPath": "status.podIP"}}
            assert env["NCCL_NET"]["value"] == "gIB"

    def test_shared_memory_and_libraries_are_mounted(self):
        for template in templates(shared_memory_mib=4096):
            volumes = {item["name"]: item for item in template["spec"]["volumes"]}
            assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "4Gi"}
            assert {item["name"] for item in container(template)["volumeMounts"]} == set(volumes)
            assert "hostPath" in volumes["gib"]

    def test_a_namespace_must_admit_more_only_with_rdma(self):
        assert penstock.ModelReplicaSet.pod_security_level({"rdma": {"mode": "roce"}}) == "privileged"
        assert penstock.ModelReplicaSet.pod_security_level({"nodes": 2}) == "restricted"
