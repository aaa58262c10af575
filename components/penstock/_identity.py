"""Workload Identity: how IAM names a Kubernetes ServiceAccount, and conditions on what it may touch."""

from collections.abc import Mapping


def workload_pool(project: str) -> str:
    """Return the project's workload identity pool, the issuer of every ServiceAccount of its clusters."""
    return f"{project}.svc.id.goog"


def principal(project: str, project_number: str, namespace: str, service_account: str) -> str:
    """Return the IAM member of one ServiceAccount: no Google service account and no key stands between.

    Source: GKE, "Authenticate to Google Cloud APIs from GKE workloads", principal identifiers.
    """
    pool = f"projects/{project_number}/locations/global/workloadIdentityPools/{workload_pool(project)}"
    return f"principal://iam.googleapis.com/{pool}/subject/ns/{namespace}/sa/{service_account}"


def condition(title: str, expression: str, description: str = "") -> Mapping[str, str]:
    """Return an IAM condition; `expression` is CEL over `resource.*` and `request.time`."""
    found = {"title": title, "expression": expression}
    return found | {"description": description} if description else found
