"""The component `InferenceGateway`: the private entry, and the namespace that everything else lives in."""

from typing import Any, NotRequired, TypedDict

import pulumi
import pulumi_gcp as gcp

from . import armor as armors
from . import certificate as certificates
from ._apply import apply, child_options
from ._shape import conform
from .armor import Armor
from .certificate import GatewayCertificate
from .errors import raise_if
from .manifests import gateway as manifests
from .manifests.location import gcp_labels


class GatewayTls(TypedDict):
    """Where the HTTPS listener's certificates come from: exactly one of the four."""

    cert_manager_certs: NotRequired[list[str]]
    """Names of regional Certificate Manager certificates."""
    pre_shared_certs: NotRequired[list[str]]
    """Names of regional Compute Engine SSL certificates."""
    secret_names: NotRequired[list[str]]
    """Names of TLS Secrets in the Gateway's namespace. The Secrets are made elsewhere: keys never pass through here."""
    certificate: NotRequired[GatewayCertificate]
    """A regional Certificate Manager certificate that is made here."""


class GatewayAddress(TypedDict):
    """An internal address that is reserved here, for all listeners of the Gateway (SHARED_LOADBALANCER_VIP)."""

    ip_address: NotRequired[str]
    """IPv4 address in the subnetwork. Default: Google chooses. Another one is another reservation, made first."""
    subnetwork: pulumi.Input[str]
    """URI of the subnetwork that it is taken from, in the Gateway's region. Another one needs another `prefix` or
    `ip_address` too, since the Gateway holds the old reservation until it has the new one."""


class SslPolicy(TypedDict):
    """A regional SSL policy that is made here."""

    profile: NotRequired[str]
    """`COMPATIBLE`, `MODERN`, `RESTRICTED` or `FIPS_202205`. Default `MODERN`."""
    min_version: NotRequired[str]
    """`TLS_1_0` to `TLS_1_2`; `TLS_1_3` with `RESTRICTED` only. Default `TLS_1_2`."""


class InferenceGatewayArgs(TypedDict):
    """Arguments of `InferenceGateway`."""

    name: str
    """Name of the Gateway object, a DNS label of at most 54 characters."""
    namespace: str
    """Namespace of the Gateway, of its extensions and of all callouts."""
    create_namespace: NotRequired[bool]
    """Whether the namespace is declared here. Default true."""
    pod_security: NotRequired[str]
    """Pod Security level that the namespace enforces: `restricted`, `baseline` or `privileged`. Default `restricted`;
    RDMA pods need less. Audit and warnings stay at `restricted`."""
    class_name: NotRequired[str]
    """GatewayClass. Default `gke-l7-rilb`, the regional internal Application Load Balancer."""
    tls: NotRequired[GatewayTls]
    """Certificates of the HTTPS listener on port 443. Without it the listener is plain HTTP on port 80."""
    redirect_http: NotRequired[bool]
    """Also listen on port 80 and redirect to HTTPS. Default false; needs `tls` and `address` or `address_name`."""
    hostname: NotRequired[str]
    """DNS name that the listener serves. Default: any."""
    allow_global_access: NotRequired[bool]
    """Whether clients of other regions may connect. Default true; see `manifests.gateway.gateway_policy`."""
    log_sample_rate: NotRequired[float]
    """Share of requests that the load balancer logs, 0 to 1. Default 0. Pools apply it: see `pool_settings`."""
    project: NotRequired[str]
    """Project of what is made outside of the cluster: `address`, `ssl`, `armor`, `tls.certificate`."""
    region: NotRequired[str]
    """Region of the same, which is the load balancer's."""
    prefix: NotRequired[str]
    """What the names of the same begin with, at most 43 characters. Default `name`; unique in project and region."""
    labels: NotRequired[dict[str, str]]
    """Labels of the same, beside `part-of: penstock`."""
    address: NotRequired[GatewayAddress]
    """An address that is reserved here."""
    ssl: NotRequired[SslPolicy]
    """An SSL policy that is made here."""
    armor: NotRequired[Armor]
    """A Cloud Armor policy that is made here. Pools apply it: the output `security_policy` is its name."""
    address_name: NotRequired[pulumi.Input[str]]
    """Name of a reserved internal address, of purpose SHARED_LOADBALANCER_VIP for two listeners. Default: any."""
    ssl_policy: NotRequired[pulumi.Input[str]]
    """Name of a regional SSL policy for the HTTPS listener."""


class InferenceGateway(pulumi.ComponentResource):
    """Namespace, Gateway, its GCPGatewayPolicy, the redirect to HTTPS, and what they need of Google Cloud.

    The policy comes first, so that no listener is ever served without it, and global access is on before a service
    attachment can exist. The Gateway is awaited until its condition `Programmed` holds.
    """

    gateway_name: pulumi.Output[str]
    """Name of the Gateway object."""
    namespace: pulumi.Output[str]
    """Namespace that the Gateway lives in."""
    listener: pulumi.Output[str]
    """Name of the listener that routes attach to."""
    address: pulumi.Output[str]
    """IPv4 address, if it is reserved here; else empty."""
    gateway_metadata: pulumi.Output[dict[str, Any]]
    """`name`, `namespace` and `annotations` of the live Gateway. Unknown until Gateway and policy exist, and whatever
    takes it is made after both and deleted before either."""
    security_policy: pulumi.Output[str]
    """Name of the Cloud Armor policy, for the pools; empty without one."""
    certificate_names: pulumi.Output[list[str]]
    """Names of the Certificate Manager certificates that the listener serves."""
    dns_records: pulumi.Output[list[dict[str, str]]]
    """Records (`domain`, `name`, `type`, `data`) that prove the certificate's domains; needed in the public DNS."""

    listener_name = staticmethod(manifests.listener_name)
    """Names the listener that routes attach to, by the arguments alone."""
    listener_port = staticmethod(manifests.listener_port)
    """Tells that listener's port, by the arguments alone: the one that `ServicePublication` publishes."""
    names = staticmethod(manifests.names)
    """Names the Google Cloud resources that are made here, by role, by the arguments alone."""
    pool_settings = staticmethod(manifests.pool_settings)
    """Returns the plain arguments of every `InferencePool` that follow from the Gateway's."""
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
        before = self._namespace_resources
        self._certificate(name, args)
        self._address(name, args)
        self._ssl(name, args)
        policy = apply(
            f"{name}-policy", manifests.gateway_policy(args), child_options(self, [*before, *self._ssl_policies])
        )
        needed = [*before, policy, *self._certificates, *self._addresses]
        gateway = apply(f"{name}-gateway", manifests.gateway(args), child_options(self, needed))
        if args.get("redirect_http"):
            apply(f"{name}-redirect", manifests.redirect(args), child_options(self, before))

        self.gateway_name = pulumi.Output.from_input(args["name"])
        self.namespace = pulumi.Output.from_input(args["namespace"])
        self.listener = pulumi.Output.from_input(manifests.listener_name(args))
        self.gateway_metadata = _live_metadata(gateway, policy)
        self.security_policy = self._armor(name, args)
        self.register_outputs(
            {
                "gatewayName": self.gateway_name,
                "namespace": self.namespace,
                "listener": self.listener,
                "address": self.address,
                "gatewayMetadata": self.gateway_metadata,
                "securityPolicy": self.security_policy,
                "certificateNames": self.certificate_names,
                "dnsRecords": self.dns_records,
            }
        )

    def namespace_resources(self) -> list[pulumi.Resource]:
        """Return what must exist before anything is put into the namespace; empty when it is declared elsewhere."""
        return list(self._namespace_resources)

    def _certificate(self, name: str, args: InferenceGatewayArgs) -> None:
        self._certificates: list[pulumi.Resource] = []
        tls = args.get("tls", GatewayTls())
        self.certificate_names = pulumi.Output.from_input(tls.get("cert_manager_certs", []))
        self.dns_records = pulumi.Output.from_input([])
        if "certificate" in tls:
            made, self.dns_records = certificates.make(name, args, tls["certificate"], self)
            self._certificates.append(made)
            self.certificate_names = pulumi.Output.all(made.name)

    def _address(self, name: str, args: InferenceGatewayArgs) -> None:
        self._addresses: list[pulumi.Resource] = []
        self.address = pulumi.Output.from_input("")
        if "address" in args:
            made = gcp.compute.Address(
                f"{name}-address",
                name=manifests.names(args)["address"],
                address=args["address"].get("ip_address"),
                address_type="INTERNAL",
                purpose=manifests.ADDRESS_PURPOSE,
                subnetwork=args["address"]["subnetwork"],
                description="The inference gateway's",
                labels=gcp_labels(args.get("labels")),
                project=args["project"],
                region=args["region"],
                opts=child_options(self),
            )
            self._addresses.append(made)
            self.address = made.address

    def _ssl(self, name: str, args: InferenceGatewayArgs) -> None:
        self._ssl_policies: list[pulumi.Resource] = []
        if "ssl" in args:
            made = gcp.compute.RegionSslPolicy(
                f"{name}-ssl-policy",
                name=manifests.names(args)["ssl_policy"],
                profile=args["ssl"].get("profile", manifests.SSL_PROFILE),
                min_tls_version=args["ssl"].get("min_version", manifests.SSL_VERSION),
                project=args["project"],
                region=args["region"],
                opts=child_options(self),
            )
            self._ssl_policies.append(made)

    def _armor(self, name: str, args: InferenceGatewayArgs) -> pulumi.Output[str]:
        if "armor" not in args:
            return pulumi.Output.from_input("")
        physical = manifests.names(args)["security_policy"]
        made = armors.make(
            f"{name}-armor", physical, args["project"], args["region"], args["armor"], child_options(self)
        )
        return made.name


def _live_metadata(gateway: pulumi.CustomResource, policy: pulumi.CustomResource) -> pulumi.Output[dict[str, Any]]:
    """Return the live Gateway's metadata, known only if Gateway and policy exist.

    In a preview the provider answers a creation with the metadata that was declared; the identifiers, which only real
    objects have, keep that from being taken for the live one.
    """

    def live(values: list[Any]) -> dict[str, Any]:
        metadata = values[0]
        return {key: metadata[key] for key in ("name", "namespace")} | {"annotations": dict(metadata["annotations"])}

    metadata: pulumi.Output[Any] = getattr(gateway, "metadata")  # noqa: B009 - a property of its class only
    return pulumi.Output.all(metadata, gateway.id, policy.id).apply(live)
