// One model behind a Gateway that exists. `pulumi package add ../../components` generates the SDK that is imported here.
import * as penstock from "@pulumi/penstock";

const namespace = "inference";
const name = "llama-3-1-8b";
const model = "llama-3.1-8b";

const replicas = new penstock.ModelReplicaSet(name, {
    name,
    namespace,
    model,
    source: "meta-llama/Llama-3.1-8B-Instruct",
    replicas: 3,
    image: "vllm/vllm-openai:v0.32.0",
});

const pool = new penstock.InferencePool(name, {
    name,
    namespace,
    picker: { image: "penstock/services:0.1.0" },
});

const route = new penstock.ModelRoute(name, {
    model,
    namespace,
    gateway: "inference-gateway",
    pools: [{ name }],
}, { dependsOn: [pool] });

export const replicaSet = replicas.replicaSetName;
export const routeName = route.routeName;
