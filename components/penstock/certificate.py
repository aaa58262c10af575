"""A regional certificate for the Gateway: the arguments, and the resources that they make."""

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

import pulumi
import pulumi_gcp as gcp

from .manifests import certificate as manifests
from .manifests.location import gcp_labels


class GatewayCertificate(TypedDict):
    """A regional certificate that Certificate Manager issues and renews; keys never leave it.

    Domains are proven by a DNS record for each, unless `issuance_config` names a private authority. Another list of
    domains is another certificate, made before the old one goes.
    """

    domains: list[str]
    """DNS names, `*.` in front for a wildcard."""
    dns_zone: NotRequired[str]
    """Public Cloud DNS zone in which the records are set. Default: none; the output `dns_records` says what to set."""
    dns_zone_project: NotRequired[str]
    """Project of `dns_zone`. Default the Gateway's."""
    issuance_config: NotRequired[str]
    """`projects/P/locations/REGION/certificateIssuanceConfigs/NAME` of a private authority, for names that are not
    public. Default: a public authority."""


def make(
    name: str, args: Mapping[str, Any], certificate: GatewayCertificate, parent: pulumi.Resource
) -> "tuple[gcp.certificatemanager.Certificate, pulumi.Output[list[dict[str, str]]]]":
    """Register the certificate, its DNS authorizations and, with a zone, their records.

    Args:
        name: the component's name.
        args: checked arguments of `InferenceGateway`.
        certificate: its certificate.
        parent: the component.

    Returns:
        The certificate, and the records (`domain`, `name`, `type`, `data`) that must be in the public DNS.
    """
    labels, project, region = gcp_labels(args.get("labels")), args["project"], args["region"]
    prefix = manifests.prefix(args)
    opts = pulumi.ResourceOptions(parent=parent)
    proven = {
        domain: gcp.certificatemanager.DnsAuthorization(
            f"{name}-authorization-{domain}",
            name=manifests.authorization_name(prefix, domain),
            domain=domain,
            type=manifests.AUTHORIZATION_TYPE,
            description=f"Proof of {domain}",
            labels=labels,
            project=project,
            location=region,
            opts=opts,
        )
        for domain in manifests.authorized(certificate)
    }
    records = pulumi.Output.all(**{domain: proof.dns_resource_records for domain, proof in proven.items()}).apply(
        lambda found: [{"domain": domain, **_record(found[domain])} for domain in proven]
    )
    waits = [_set(name, certificate, project, domain, proof, opts) for domain, proof in proven.items()]
    managed = gcp.certificatemanager.CertificateManagedArgs(
        domains=certificate["domains"],
        dns_authorizations=[proof.id for proof in proven.values()] or None,
        issuance_config=certificate.get("issuance_config"),
    )
    made = gcp.certificatemanager.Certificate(
        f"{name}-certificate",
        name=manifests.certificate_name(prefix, certificate),
        description="The inference gateway's",
        managed=managed,
        labels=labels,
        project=project,
        location=region,
        opts=pulumi.ResourceOptions(parent=parent, depends_on=[found for found in waits if found]),
    )
    return made, records


def _set(
    name: str,
    certificate: GatewayCertificate,
    project: str,
    domain: str,
    proof: "gcp.certificatemanager.DnsAuthorization",
    opts: pulumi.ResourceOptions,
) -> "gcp.dns.RecordSet | None":
    zone = certificate.get("dns_zone")
    if not zone:
        return None
    record = proof.dns_resource_records.apply(_record)
    return gcp.dns.RecordSet(
        f"{name}-record-{domain}",
        project=certificate.get("dns_zone_project", project),
        managed_zone=zone,
        name=record["name"],
        type=record["type"],
        ttl=manifests.RECORD_TTL_S,
        rrdatas=[record["data"]],
        opts=opts,
    )


def _record(records: Any) -> dict[str, str]:
    """Return the one record that an authorization asks for."""
    (record,) = records
    return {key: str(record[key]) for key in ("name", "type", "data")}
