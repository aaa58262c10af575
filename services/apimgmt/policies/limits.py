"""Limits: what the request may use at most is charged against every limit that binds its caller.

This policy only says what to charge; the pipeline reserves it after all policies have passed, in one atomic step, and
`ratelimit.py` turns a refusal into an answer.
"""

from typing import ClassVar

from services.apimgmt import charging
from services.apimgmt.call import Call
from services.apimgmt.policies.api import Policy
from services.extproc.api import Answer
from services.extproc.config import ConfigModel


class LimitsSettings(ConfigModel):
    """Nothing to set: limits belong to products, organizations, groups, teams and developers."""


class LimitsPolicy(Policy[LimitsSettings]):
    """See the module's text."""

    name: ClassVar[str] = "limits"
    settings_model = LimitsSettings

    def check(self, call: Call) -> Answer:
        """Add a charge for each limit; refuse what no limit could ever grant."""
        return charging.add(call)
