"""Checks of the bucket of weights. Knows nothing of Pulumi."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import ConfigError
from .common import check_range
from .location import check_labels, check_place

if TYPE_CHECKING:
    from ..model_bucket import ModelBucketArgs

OLD_VERSIONS_DAYS = 30
SOFT_DELETE_DAYS = 7
"""Default and least of Cloud Storage. Source: Cloud Storage, "Soft delete"."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
_KEY = re.compile(r"projects/[^/]+/locations/([^/]+)/keyRings/[^/]+/cryptoKeys/[^/]+")
_DAY_S = 86_400


def has_versioning(args: "ModelBucketArgs") -> bool:
    """Return whether replaced files are kept; Cloud Storage does not offer it with a hierarchical namespace."""
    return args.get("versioning", not args.get("hierarchical_namespace", False))


def soft_delete_s(args: "ModelBucketArgs") -> int:
    """Return how long deleted files can be restored, in seconds."""
    return args.get("soft_delete_days", SOFT_DELETE_DAYS) * _DAY_S


def problems(args: "ModelBucketArgs", path: str) -> Iterator[ConfigError]:
    """Yield every reason why `args` cannot be declared."""
    name = args["name"]
    if not _NAME.fullmatch(name) or name.startswith("goog") or "google" in name:
        expected = "3 to 63 lower-case letters, digits and hyphens, neither `google` nor `goog` at the front"
        yield ConfigError(f"{path}.name", name, expected, "Rename it; begin with the project's id to be unique")
    yield from check_place(path, args)
    yield from check_labels(f"{path}.labels", args.get("labels", {}))
    if args.get("hierarchical_namespace") and args.get("versioning"):
        expected = "no versions with a hierarchical namespace, Cloud Storage refuses the two together"
        yield ConfigError(f"{path}.versioning", True, expected, "Turn one of them off")
    if "old_versions_days" in args and not has_versioning(args):
        fix = "Turn `versioning` on, or remove the days"
        yield ConfigError(f"{path}.old_versions_days", args["old_versions_days"], "`versioning`", fix)
    yield from check_range(f"{path}.old_versions_days", args.get("old_versions_days", 1), 1, 3650, "days")
    if args.get("soft_delete_days", SOFT_DELETE_DAYS) != 0:
        days = args.get("soft_delete_days", SOFT_DELETE_DAYS)
        yield from check_range(f"{path}.soft_delete_days", days, 7, 90, "0 (none), or days")
    if args.get("force_destroy") and args.get("protect", True):
        fix = "Set `protect: false` too, or remove it"
        yield ConfigError(f"{path}.force_destroy", True, "a bucket that may be deleted", fix)
    key = args.get("kms_key")
    if isinstance(key, str):
        yield from _key_problems(key, args["region"], f"{path}.kms_key")


def _key_problems(key: str, region: str, path: str) -> Iterator[ConfigError]:
    found = _KEY.fullmatch(key)
    if not found:
        fix = "Write it like `projects/P/locations/L/keyRings/R/cryptoKeys/K`, without a version"
        yield ConfigError(path, key, "a Cloud KMS key", fix)
    elif found[1] != region:
        yield ConfigError(path, key, f"a key in {region}, where the bucket is", "Choose a key of that location")
