"""The component `ModelBucket`: where the weights of the models lie."""

from typing import NotRequired, TypedDict

import pulumi
import pulumi_gcp as gcp

from ._shape import conform
from .errors import raise_if
from .manifests import model_bucket as manifests
from .manifests.location import gcp_labels


class ModelBucketArgs(TypedDict):
    """Arguments of `ModelBucket`."""

    name: str
    """Name of the bucket, unique in the world: 3 to 63 lower-case letters, digits and hyphens."""
    project: str
    """Project id."""
    region: str
    """Location, the region of the replicas: reads stay within it."""
    hierarchical_namespace: NotRequired[bool]
    """Whether folders are real: listing and opening many files by FUSE is faster. Excludes `versioning`. Cannot be
    changed later. Default false."""
    versioning: NotRequired[bool]
    """Whether replaced and deleted files are kept for `old_versions_days`. Default: unless `hierarchical_namespace`."""
    old_versions_days: NotRequired[int]
    """Days that replaced files are kept with `versioning`, 1 to 3650. Default 30."""
    soft_delete_days: NotRequired[int]
    """Days in which deleted files can be restored, 7 to 90, or 0 for none. Default 7. Kept files are paid for."""
    force_destroy: NotRequired[bool]
    """Whether `destroy` deletes the bucket with all weights in it. Default false."""
    protect: NotRequired[bool]
    """Whether Pulumi refuses to delete the bucket until this is turned off. Default true."""
    labels: NotRequired[dict[str, str]]
    """Labels beside `part-of: penstock`."""
    kms_key: NotRequired[pulumi.Input[str]]
    """Cloud KMS key `projects/P/locations/L/keyRings/R/cryptoKeys/K` that encrypts the weights, in the same location.
    The project's storage service agent must be allowed to use it. Default: a key of Google's."""


class ModelBucket(pulumi.ComponentResource):
    """A private bucket: access by IAM alone, never public, with a way back from mistakes."""

    bucket_name: pulumi.Output[str]
    """Name of the bucket."""

    problems = staticmethod(manifests.problems)
    """Yields every reason why arguments are refused; a program can check all components before it makes one."""

    def __init__(self, name: str, args: ModelBucketArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Register the component. Raises `ConfigErrors` before anything is registered."""
        args = conform(ModelBucketArgs, args, name)
        raise_if(manifests.problems(args, name))
        super().__init__("penstock:index:ModelBucket", name, None, opts)

        hierarchical, versioning = args.get("hierarchical_namespace", False), manifests.has_versioning(args)
        kept = gcp.storage.BucketSoftDeletePolicyArgs(retention_duration_seconds=manifests.soft_delete_s(args))
        key = args.get("kms_key")
        bucket = gcp.storage.Bucket(
            f"{name}-bucket",
            name=args["name"],
            project=args["project"],
            location=args["region"].upper(),
            uniform_bucket_level_access=True,
            public_access_prevention="enforced",
            hierarchical_namespace=gcp.storage.BucketHierarchicalNamespaceArgs(enabled=True) if hierarchical else None,
            versioning=gcp.storage.BucketVersioningArgs(enabled=True) if versioning else None,
            lifecycle_rules=_old_versions(args) if versioning else None,
            soft_delete_policy=kept,
            encryption=gcp.storage.BucketEncryptionArgs(default_kms_key_name=key) if key is not None else None,
            force_destroy=args.get("force_destroy", False),
            labels=gcp_labels(args.get("labels")),
            opts=pulumi.ResourceOptions(parent=self, protect=args.get("protect", True)),
        )
        self.bucket_name = bucket.name
        self.register_outputs({"bucketName": self.bucket_name})


def _old_versions(args: ModelBucketArgs) -> "list[gcp.storage.BucketLifecycleRuleArgs]":
    days = args.get("old_versions_days", manifests.OLD_VERSIONS_DAYS)
    return [
        gcp.storage.BucketLifecycleRuleArgs(
            action=gcp.storage.BucketLifecycleRuleActionArgs(type="Delete"),
            condition=gcp.storage.BucketLifecycleRuleConditionArgs(
                days_since_noncurrent_time=days, with_state="ARCHIVED"
            ),
        )
    ]
