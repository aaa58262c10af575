"""Prompt limit: refuses prompts that have more tokens than a product wants to read."""

from typing import ClassVar

from pydantic import Field

from services.apimgmt.call import Call
from services.apimgmt.policies.api import Policy, Tools
from services.apimgmt.usage.estimator import Estimator
from services.apimgmt.usage.request import tokenizer_of, unanswered
from services.extproc.api import Answer, deny
from services.extproc.config import ConfigModel

FIRST_ERROR = 0.35
"""Assumed error of the estimate of a model that nothing is known of: languages differ by as much."""


class PromptLimitSettings(ConfigModel):
    """Settings of `prompt-limit`."""

    max_tokens: int = Field(ge=1, le=10_000_000)
    """Most tokens of a prompt, all messages together."""


class PromptLimitPolicy(Policy[PromptLimitSettings]):
    """Compares the expected tokens of the prompt: limits reserve a pessimistic number, which would refuse too much."""

    name: ClassVar[str] = "prompt-limit"
    settings_model = PromptLimitSettings

    def __init__(self, settings: PromptLimitSettings, tools: Tools) -> None:
        super().__init__(settings, tools)
        estimator = tools.extras.get("estimator")
        self._estimator = estimator if isinstance(estimator, Estimator) else Estimator()

    def check(self, call: Call) -> Answer:
        """Refuse a prompt that is too long."""
        most = self.settings.max_tokens
        if call.prompt_tokens <= most:  # at most as many
            return None
        counted = unanswered(call, self._estimator).prompt
        if counted <= most:
            return None
        text = f"This product reads at most {most} prompt tokens. However, your prompt has about {counted}."
        if counted * (1 - self._error(tokenizer_of(call))) <= most:
            text += " That is an estimate, and the prompt may be just short enough."
        return deny(400, f"{text} Shorten it.", param="messages", code="context_length_exceeded")

    def _error(self, model: str) -> float:
        """Return the mean relative error of the model's estimates."""
        known = (ratio.error for name, ratio, _ in self._estimator.ratios() if name == model)
        return next(known, FIRST_ERROR)
