"""The component `BodyRouter`: the callout that reads the model's name from the request body."""

from typing import NotRequired, TypedDict

import pulumi

from ._callout import declare
from ._shape import conform
from .errors import raise_if
from .manifests import body_router as manifests
from .model_routing import ModelAlias, PromptClassifier, PromptRoute


class ServedModel(TypedDict):
    """A model as clients name it."""

    name: str
    """Value of `model` in requests."""
    adapters: NotRequired[list[str]]
    """Names of its LoRA adapters, which clients use as `model` too."""


class BodyRouterArgs(TypedDict):
    """Arguments of `BodyRouter`."""

    namespace: str
    """Namespace of the Gateway."""
    models: list[ServedModel]
    """Every model behind the Gateway; all other names answer 404."""
    aliases: NotRequired[list[ModelAlias]]
    """Other names of models. Clients may use them as `model`; keys still have to open the model itself."""
    prompt_routes: NotRequired[list[PromptRoute]]
    """Models chosen by the request, in this order."""
    classifiers: NotRequired[list[PromptClassifier]]
    """Services that choose where no prompt route does."""
    replicas: NotRequired[int]
    """Pods. Default 2."""
    max_body_bytes: NotRequired[int]
    """Largest request body in bytes; beyond it 413. Default 10 MiB."""
    allow_client_headers: NotRequired[list[str]]
    """Trusted headers that clients may send after all. Default none."""
    stream_timeout_s: NotRequired[int]
    """Seconds that the router may be busy with one request, i.e. of its slowest upload. Default 3600."""
    drain_timeout_s: NotRequired[int]
    """Seconds to finish open streams after SIGTERM. Default 30."""
    log_level: NotRequired[str]
    """`debug`, `info`, `warning` or `error`. Default `info`."""
    tls_secret: NotRequired[str]
    """TLS Secret of the callout's server. Default: it makes a self-signed certificate, which GKE accepts."""
    cpu: NotRequired[str]
    """CPU request per pod. Default `500m`."""
    memory: NotRequired[str]
    """Memory request and limit per pod. Default `512Mi`."""
    monitoring: NotRequired[bool]
    """Whether managed Prometheus reads the callout's metrics. Default false."""
    image: pulumi.Input[str]
    """Image of Penstock's services, pinned by tag or digest."""


class BodyRouter(pulumi.ComponentResource):
    """The objects `body-router`: account, configuration, Deployment, disruption budget, Service and its policies."""

    service_name: pulumi.Output[str]
    """Name of the callout's Service."""
    service_port: pulumi.Output[int]
    """Port of ext_proc on the Service, HTTP/2 over TLS."""

    SERVICE_NAME = manifests.NAME
    SERVICE_PORT = manifests.GRPC_PORT
    problems = staticmethod(manifests.problems)
    """Yields every reason why arguments are refused; a program can check all components before it makes one."""

    def __init__(self, name: str, args: BodyRouterArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Register the component. Raises `ConfigErrors` before anything is registered."""
        args = conform(BodyRouterArgs, args, name)
        raise_if(manifests.problems(args, name))
        super().__init__("penstock:index:BodyRouter", name, None, opts)

        timeout_s = args.get("stream_timeout_s", manifests.STREAM_TIMEOUT_S)
        declare(name, manifests.callout(args), timeout_s, self)

        self.service_name = pulumi.Output.from_input(manifests.NAME)
        self.service_port = pulumi.Output.from_input(manifests.GRPC_PORT)
        self.register_outputs({"serviceName": self.service_name, "servicePort": self.service_port})
