"""The registry of policies: each is known to configs by its name."""

from collections.abc import Mapping
from typing import Any

from services.apimgmt.policies.access import AccessPolicy
from services.apimgmt.policies.api import Policy
from services.apimgmt.policies.cache import Cache
from services.apimgmt.policies.credentials import CredentialsPolicy
from services.apimgmt.policies.external import ExternalPolicy
from services.apimgmt.policies.limits import LimitsPolicy
from services.apimgmt.policies.prompt_limit import PromptLimitPolicy
from services.apimgmt.policies.script import ScriptPolicy
from services.apimgmt.policies.spike_arrest import SpikeArrestPolicy
from services.apimgmt.policies.validation import Validation

_CLASSES: tuple[type[Policy[Any]], ...] = (
    CredentialsPolicy,
    AccessPolicy,
    Validation,
    PromptLimitPolicy,
    SpikeArrestPolicy,
    LimitsPolicy,
    ExternalPolicy,
    ScriptPolicy,
    Cache,
)

REGISTRY: Mapping[str, type[Policy[Any]]] = {cls.name: cls for cls in _CLASSES}
