"""Declares audit configuration, and the log bucket and sink that keep it."""

from typing import TYPE_CHECKING, Any

import pulumi
import pulumi_gcp as gcp

from .manifests import audit as manifests

if TYPE_CHECKING:
    from .security import AuditRules


def declare(name: str, base: str, rules: "AuditRules", opts: pulumi.ResourceOptions) -> None:
    """Register what is logged of each service and, where asked for, where it is kept."""
    project = rules["project"]
    for item in manifests.services(rules):
        exempted = {"exempted_members": list(item["exempted_members"])} if item.get("exempted_members") else {}
        types = item.get("log_types", manifests.LOG_TYPES)
        configs: list[Any] = [{"log_type": kind, **exempted} for kind in types]
        short = item["service"].removesuffix(".googleapis.com").lower()
        gcp.projects.IAMAuditConfig(
            f"{name}-audit-{short}", project=project, service=item["service"], audit_log_configs=configs, opts=opts
        )
    archive = rules.get("archive")
    if archive is None:
        return
    bucket_id, location = f"{base}{manifests.SUFFIX}", archive["location"]
    bucket = gcp.logging.ProjectBucketConfig(
        f"{name}-audit-bucket",
        project=project,
        location=location,
        bucket_id=bucket_id,
        retention_days=archive.get("retention_days", manifests.RETENTION_DAYS),
        locked=archive.get("locked", False),
        description="Audit logs of the inference network",
        opts=opts,
    )
    gcp.logging.ProjectSink(
        f"{name}-audit-sink",
        project=project,
        name=bucket_id,
        destination=f"logging.googleapis.com/projects/{project}/locations/{location}/buckets/{bucket_id}",
        filter=archive.get("filter", manifests.FILTER),
        unique_writer_identity=True,
        opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[bucket])),
    )
