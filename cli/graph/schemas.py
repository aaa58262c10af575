"""Judges recorded custom resources by CustomResourceDefinitions, offline.

A preview on a fresh cluster does not check custom resources at all, and the API server drops unknown fields in
silence. Here every custom resource gets a verdict before anything is deployed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from penstock.errors import did_you_mean

from cli.errors import UsageError
from cli.graph.findings import Findings, SchemaError, unwrap
from cli.graph.model import Graph, Resource
from cli.graph.rules import evaluate_rules
from cli.graph.structural import Schema, Walker, with_defaults

BUILT_IN_GROUPS = frozenset(
    {"", "apps", "autoscaling", "batch", "extensions", "policy"}
    | {f"{group}.k8s.io" for group in ("admissionregistration", "apiextensions", "apiregistration", "authentication")}
    | {f"{group}.k8s.io" for group in ("authorization", "certificates", "coordination", "discovery", "events")}
    | {f"{group}.k8s.io" for group in ("flowcontrol.apiserver", "internal.apiserver", "networking", "node")}
    | {f"{group}.k8s.io" for group in ("rbac.authorization", "resource", "scheduling", "storage", "storagemigration")}
)
"""API groups that the API server itself serves. Source: Kubernetes API reference 1.35."""

Status = Literal["ok", "invalid", "no-schema", "skipped"]

# libyaml's parser reads the CRDs about ten times faster, where PyYAML was built with it.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the schema says of one resource.

    `status` is `ok`, `invalid`, `no-schema` (a custom resource whose kind has no CRD here) or `skipped` (not a custom
    resource). `undecided` names what unknown values hide, `not_evaluated` what cannot be checked offline.
    """

    resource: Resource
    status: Status
    errors: tuple[SchemaError, ...] = ()
    undecided: tuple[str, ...] = ()
    not_evaluated: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Version:
    schema: Schema
    served: bool
    namespaced: bool
    source: Path


class SchemaSet:
    """The CRDs of some folders, by group, kind and version.

    Usage:
        schemas = SchemaSet.load(Path("crds"))
        for verdict in schemas.judge(graph):
            ...
    """

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str], dict[str, _Version]] = {}

    @classmethod
    def load(cls, *folders: Path) -> "SchemaSet":
        """Read each CRD in the YAML files of `folders` and below. Raises `UsageError` naming a file it cannot read."""
        schemas = cls()
        for folder in folders:
            if not folder.is_dir():
                raise UsageError(f"schemas: {folder} is not a folder. Name one that holds CRD YAML files")
            for path in sorted({*folder.rglob("*.yaml"), *folder.rglob("*.yml")}):
                schemas.load_file(path)
        return schemas

    def load_file(self, path: Path) -> None:
        """Read each CRD in one file; other documents are passed over."""
        try:
            documents = list(yaml.load_all(path.read_bytes(), _LOADER))
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise UsageError(f"schemas: cannot read {path}: {error}") from error
        for document in documents:
            if isinstance(document, dict) and document.get("kind") == "CustomResourceDefinition":
                self._add(document, path)

    def _add(self, crd: Mapping[str, Any], path: Path) -> None:
        try:
            spec = crd["spec"]
            versions = self._kinds.setdefault((spec["group"], spec["names"]["kind"]), {})
            for version in spec["versions"]:
                found = _Version(
                    version["schema"]["openAPIV3Schema"], version["served"], spec["scope"] == "Namespaced", path
                )
                other = versions.setdefault(version["name"], found)
                if other is not found and other.schema != found.schema:
                    kind = f"{spec['names']['kind']} ({spec['group']}/{version['name']})"
                    raise UsageError(f"schemas: {path} and {other.source} both define {kind}, differently. Remove one")
        except (KeyError, TypeError) as error:
            raise UsageError(f"schemas: {path} is not a CRD of apiextensions.k8s.io/v1: missing {error}") from error

    def __len__(self) -> int:
        return len(self._kinds)

    def kinds(self) -> list[tuple[str, str, str]]:
        """Return (group, version, kind) of everything known, sorted."""
        return sorted((group, name, kind) for (group, kind), versions in self._kinds.items() for name in versions)

    def judge(self, graph: Graph) -> Iterable[Verdict]:
        """Yield a verdict for each resource of `graph`, in its order."""
        return map(self.verdict, graph.resources)

    def verdict(self, resource: Resource) -> Verdict:
        """Judge one resource."""
        if not is_custom_resource(resource):
            return Verdict(resource, "skipped")
        secrets: set[str] = set()
        manifest = unwrap(dict(resource.inputs), "", secrets)
        group, _, version = str(manifest["apiVersion"]).rpartition("/")
        versions = self._kinds.get((group, str(manifest["kind"])))
        if versions is None:
            return Verdict(resource, "no-schema")
        findings = Findings(frozenset(secrets))
        known = versions.get(version)
        if known is None or not known.served:
            served = sorted(name for name, entry in versions.items() if entry.served)
            expected = f"a served version: {', '.join(f'{group}/{name}' for name in served)}"
            findings.error("apiVersion", manifest["apiVersion"], expected, did_you_mean(version, served))
        else:
            _check(manifest, known, findings, partial=_is_patch(resource))
        return Verdict(
            resource,
            "invalid" if findings.errors else "ok",
            tuple(findings.errors),
            tuple(dict.fromkeys(findings.undecided)),
            tuple(dict.fromkeys(findings.not_evaluated)),
        )


def _check(manifest: dict[str, Any], version: _Version, findings: Findings, *, partial: bool) -> None:
    walker = Walker(findings, partial)
    walker.walk_object(manifest if partial else with_defaults(manifest, version.schema), version.schema)
    metadata = manifest.get("metadata")
    if not version.namespaced and isinstance(metadata, Mapping) and "namespace" in metadata:
        fix = "Remove it: this kind belongs to the whole cluster"
        findings.error("metadata.namespace", metadata["namespace"], "no namespace", fix)
    evaluate_rules(walker.nodes, findings, partial=partial)


def is_custom_resource(resource: Resource) -> bool:
    """Tell whether `resource` is a Kubernetes object of a group that the API server does not serve by itself."""
    if not resource.type.startswith("kubernetes:") or "kind" not in resource.inputs:
        return False
    group, _, _ = str(resource.inputs.get("apiVersion", "")).rpartition("/")
    return group not in BUILT_IN_GROUPS


def _is_patch(resource: Resource) -> bool:
    """Tell whether Pulumi applies `resource` to an existing object (`GatewayPatch` and so on)."""
    return resource.type.endswith("Patch") and not str(resource.inputs["kind"]).endswith("Patch")
