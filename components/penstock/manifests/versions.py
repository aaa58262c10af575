"""GKE versions: how they compare, and which one a feature needs at least. Knows nothing of Pulumi."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ..errors import ConfigError
from .accelerators import CATALOGUE
from .common import check_word

_VERSION = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})\.([0-9]{1,4})-gke\.([0-9]{1,9})")


@dataclass(frozen=True, slots=True, order=True)
class GkeVersion:
    """A version of GKE: Kubernetes' own, then GKE's patch. Compares number by number, never as text."""

    major: int
    minor: int
    patch: int
    gke: int

    @classmethod
    def parse(cls, text: str) -> "GkeVersion | None":
        """Return the version that `text`, e.g. `1.35.2-gke.1842000`, names; None for anything else.

        Aliases such as `1.35` or `latest` are anything else: what they mean changes from day to day.
        """
        found = _VERSION.fullmatch(text)
        return cls(*(int(part) for part in found.groups())) if found else None

    def __str__(self) -> str:
        """Return the version as GKE writes it."""
        return f"{self.major}.{self.minor}.{self.patch}-gke.{self.gke}"


@dataclass(frozen=True, slots=True)
class Feature:
    """What a cluster may be wanted for."""

    minimum: str
    """Oldest version that has it, Standard clusters."""
    source: str
    """Where that is said."""
    channel: str | None = None
    """Release channel that it is confined to; None: any."""


_GATEWAY = 'GKE, "About Gateway API", versions of the bundle'

FEATURES: Mapping[str, Feature] = {
    "agent-sandbox": Feature("1.35.2-gke.1269000", 'GKE, "Agent Sandbox" (v1alpha1 API)'),
    "agent-sandbox-v1beta1": Feature("1.36.3-gke.1767000", 'GKE, "Agent Sandbox" (v1beta1 API)'),
    "apigee": Feature("1.34.0-gke.0", 'Apigee, "Install the Apigee Operator for Kubernetes"'),
    "autoscaling-metric": Feature("1.35.1-gke.1396000", 'GKE, "Expose custom metrics for autoscaling"', "RAPID"),
    "compute-class": Feature("1.30.3-gke.1451000", 'GKE, "About custom ComputeClasses"'),
    "compute-class-auto-creation": Feature(
        "1.33.3-gke.1136000", 'GKE, "Node pool auto-creation" without cluster-wide auto-provisioning'
    ),
    "dranet": Feature("1.34.1-gke.1829001", 'GKE, "Allocate network resources by using GKE managed DRANET"'),
    "flex-start-gpu": Feature("1.32.2-gke.1652000", 'GKE, "About flex-start provisioning mode"'),
    "flex-start-tpu": Feature("1.33.0-gke.1712000", 'GKE, "About flex-start provisioning mode"'),
    "fqdn-policy": Feature("1.27.1-gke.400", 'GKE, "Control Pod egress traffic using FQDN network policies"'),
    "gateway-api-1.2": Feature("1.32.2-gke.1475000", _GATEWAY),
    "gateway-api-1.3": Feature("1.33.2-gke.1335000", _GATEWAY),
    "gateway-api-1.4": Feature("1.34.1-gke.1822000", _GATEWAY),
    "gateway-api-1.5": Feature("1.35.2-gke.1842000", _GATEWAY),
    "inference-pool": Feature("1.34.0-gke.1626000", 'GKE, "About GKE Inference Gateway": v1 is part of the cluster'),
    "multi-cluster-inference": Feature("1.34.1-gke.1127000", 'GKE, "Set up the multi-cluster Inference Gateway"'),
}
"""What needs a minimum version, by the name that settings use."""


def check_version(path: str, text: str) -> Iterator[ConfigError]:
    """Yield an error unless `text` is a whole GKE version."""
    if GkeVersion.parse(text) is None:
        expected = "a whole GKE version, e.g. `1.35.2-gke.1842000`"
        yield ConfigError(path, text, expected, "Take one from `gcloud container get-server-config`")


def check_features(path: str, features: Iterable[str]) -> Iterator[ConfigError]:
    """Yield an error for each name that is no feature."""
    for index, name in enumerate(features):
        yield from check_word(f"{path}[{index}]", name, FEATURES, "a known feature")


def requirements(features: Iterable[str], accelerators: Iterable[str]) -> Iterator[tuple[str, GkeVersion, str]]:
    """Yield what is wanted, the version that it needs, and the source; unknown names are passed over."""
    for name in features:
        if name in FEATURES:
            found = GkeVersion.parse(FEATURES[name].minimum)
            if found:
                yield f"feature `{name}`", found, FEATURES[name].source
    for name in accelerators:
        minimum = CATALOGUE[name].minimum_version if name in CATALOGUE else None
        found = GkeVersion.parse(minimum) if minimum else None
        if found:
            yield f"accelerator `{name}`", found, "GKE, machine types of accelerators"


def problems(
    path: str, version: str, features: Iterable[str] = (), accelerators: Iterable[str] = ()
) -> Iterator[ConfigError]:
    """Yield an error for each feature and accelerator that needs a newer version than `version`.

    Args:
        path: where `version` stands.
        version: the cluster's minimum version.
        features: names of `FEATURES`.
        accelerators: names of the catalogue of accelerators.
    """
    given = GkeVersion.parse(version)
    if given is None:
        yield from check_version(path, version)
        return
    for what, needed, source in requirements(features, accelerators):
        if given < needed:
            yield ConfigError(path, version, f"at least {needed}: {what} needs it ({source})", f"Raise it to {needed}")


def channel_problems(path: str, channel: str, features: Iterable[str]) -> Iterator[ConfigError]:
    """Yield an error for each feature that `channel` does not have yet."""
    for name in features:
        only = FEATURES[name].channel if name in FEATURES else None
        if only and channel != only:
            fix = f"Use {only}, or do without the feature"
            yield ConfigError(path, channel, f"{only}: feature `{name}` is in no other channel yet", fix)
