"""Prompt limit: refuses prompts that have more tokens than a product wants to read."""

from typing import ClassVar

from pydantic import Field

from services.apimgmt.call import Call
from services.apimgmt.policies.api import Policy
from services.extproc.api import Answer, deny
from services.extproc.config import ConfigModel


class PromptLimitSettings(ConfigModel):
    """Settings of `prompt-limit`."""

    max_tokens: int = Field(ge=1, le=10_000_000)
    """Most tokens of a prompt, all messages together."""


class PromptLimitPolicy(Policy[PromptLimitSettings]):
    """Compares the estimate of the prompt's tokens (`usage.request`)."""

    name: ClassVar[str] = "prompt-limit"
    settings_model = PromptLimitSettings

    def check(self, call: Call) -> Answer:
        """Refuse a prompt that is too long."""
        most, counted = self.settings.max_tokens, call.prompt_tokens
        if counted <= most:
            return None
        text = f"This product reads at most {most} prompt tokens. However, your prompt has about {counted}."
        return deny(400, f"{text} Shorten it.", param="messages", code="context_length_exceeded")
