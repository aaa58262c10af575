"""What the installation is made of: the declared state against the stored one, template rules, policies."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from services.apimgmt import chain, declared
from services.apimgmt.admin import checks
from services.apimgmt.admin.access import PREFIX, Guarded
from services.apimgmt.admin.shapes import problem_responses
from services.apimgmt.differences import Difference
from services.apimgmt.policies import REGISTRY

router = APIRouter(prefix=PREFIX, tags=["installation"])


@router.get(
    "/declared/diff",
    summary="What applying the stack's config would change now",
    response_model=dict[str, Any],
    responses=problem_responses(422),
)
async def diff(access: Guarded) -> Response:
    """Compare the config file of this process with the store; empty where all is applied."""
    context = access.context
    found = await declared.preview(context.store, context.settings, context.now)
    items = [_difference(difference) for difference in found.differences]
    return JSONResponse({"items": items, "unchanged": len(found.unchanged), "next": None})


@router.get(
    "/templateRules:violations",
    summary="Products that violate template rules",
    response_model=dict[str, Any],
)
async def violations(access: Guarded) -> Response:
    """Return violations of products that were there before a rule, or that the stack declares."""
    _, documents = await access.context.store.snapshot()
    found = checks.all_violations(access.context, documents)
    return JSONResponse({"items": [asdict(violation) for violation in found], "next": None})


@router.get("/policies", summary="Policies that products can use", response_model=dict[str, Any])
async def policies(access: Guarded) -> Response:
    """Return each policy's name, when it runs, and the JSON schema of its settings."""
    items = [
        {
            "name": name,
            "stage": cls.stage.value,
            "always": name in chain.ALWAYS,
            "settings": cls.settings_model.model_json_schema(by_alias=True),
        }
        for name, cls in REGISTRY.items()
    ]
    return JSONResponse({"items": items, "next": None})


def _difference(difference: Difference) -> dict[str, Any]:
    kind, organization, name = difference.key
    return {
        "action": difference.action,
        "kind": kind.value,
        "organization": organization,
        "name": name,
        "note": difference.note,
        "fields": [{"path": f.path, "before": f.before, "after": f.after} for f in difference.fields],
    }
