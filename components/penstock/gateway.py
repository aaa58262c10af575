"""The component `InferenceGateway`: the private entry, and the namespace that everything else lives in."""

from typing import NotRequired, TypedDict

import pulumi

from ._apply import apply, child_options
from ._shape import conform
from .errors import raise_if
from .manifests import gateway as manifests


class GatewayTls(TypedDict):
    """Where the HTTPS listener's certificates come from: exactly one of the three."""

    cert_manager_certs: NotRequired[list[str]]
    """Names of regional Certificate Manager certificates."""
    pre_shared_certs: NotRequired[list[str]]
    """Names of regional Compute Engine SSL certificates."""
    secret_names: NotRequired[list[str]]
    """Names of TLS Secrets in the Gateway's namespace. The Secrets are made elsewhere: keys never pass through here."""


class InferenceGatewayArgs(TypedDict):
    """Arguments of `InferenceGateway`."""

    name: str
    """Name of the Gateway object, a DNS label of at most 54 characters."""
    namespace: str
    """Namespace of the Gateway, of its extensions and of all callouts."""
    create_namespace: NotRequired[bool]
    """Whether the namespace is declared here. Default true."""
    class_name: NotRequired[str]
    """GatewayClass. Default `gke-l7-rilb`, the regional internal Application Load Balancer."""
    tls: NotRequired[GatewayTls]
    """Certificates of the HTTPS listener on port 443. Without it the listener is plain HTTP on port 80."""
    redirect_http: NotRequired[bool]
    """Also listen on port 80 and redirect to HTTPS. Default false; needs `tls` and `address_name`."""
    hostname: NotRequired[str]
    """DNS name that the listener serves. Default: any."""
    allow_global_access: NotRequired[bool]
    """Whether clients of other regions may connect. Default true; see `manifests.gateway.gateway_policy`."""
    address_name: NotRequired[pulumi.Input[str]]
    """Name of a reserved internal address, of purpose SHARED_LOADBALANCER_VIP for two listeners. Default: any."""
    ssl_policy: NotRequired[pulumi.Input[str]]
    """Name of a regional SSL policy for the HTTPS listener."""


class InferenceGateway(pulumi.ComponentResource):
    """Namespace, Gateway, its GCPGatewayPolicy, and the redirect to HTTPS.

    The Gateway is awaited until its condition `Programmed` holds.
    """

    gateway_name: pulumi.Output[str]
    """Name of the Gateway object."""
    namespace: pulumi.Output[str]
    """Namespace that the Gateway lives in."""
    listener: pulumi.Output[str]
    """Name of the listener that routes attach to."""

    listener_name = staticmethod(manifests.listener_name)
    """Names the listener that routes attach to, by the arguments alone."""
    problems = staticmethod(manifests.problems)
    """Yields every reason why arguments are refused; a program can check all components before it makes one."""

    def __init__(self, name: str, args: InferenceGatewayArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Register the component. Raises `ConfigErrors` before anything is registered."""
        args = conform(InferenceGatewayArgs, args, name)
        raise_if(manifests.problems(args, name))
        super().__init__("penstock:index:InferenceGateway", name, None, opts)

        self._namespace_resources: list[pulumi.Resource] = []
        if args.get("create_namespace", True):
            namespace = apply(f"{name}-namespace", manifests.namespace(args), child_options(self))
            self._namespace_resources.append(namespace)
        gateway = apply(f"{name}-gateway", manifests.gateway(args), child_options(self, self._namespace_resources))
        if args.get("redirect_http"):
            apply(f"{name}-redirect", manifests.redirect(args), child_options(self, self._namespace_resources))
        apply(f"{name}-policy", manifests.gateway_policy(args), child_options(self, [gateway]))

        self.gateway_name = pulumi.Output.from_input(args["name"])
        self.namespace = pulumi.Output.from_input(args["namespace"])
        self.listener = pulumi.Output.from_input(manifests.listener_name(args))
        self.register_outputs(
            {"gatewayName": self.gateway_name, "namespace": self.namespace, "listener": self.listener}
        )

    def namespace_resources(self) -> list[pulumi.Resource]:
        """Return what must exist before anything is put into the namespace; empty when it is declared elsewhere."""
        return list(self._namespace_resources)
