"""Spike arrest: a smoothed rate of requests and of tokens, so that use within a limit does not come all at once."""

from collections.abc import Callable
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from services.apimgmt import ratelimit
from services.apimgmt.call import Call, Caller
from services.apimgmt.policies.api import Policy, Tools
from services.apimgmt.store.api import Pace
from services.extproc.api import Answer
from services.extproc.config import ConfigModel

PERIOD_US = {"second": 1e6, "minute": 60e6}


class Rate(ConfigModel):
    """An amount per time."""

    amount: int = Field(ge=1, le=10**12)
    per: Literal["second", "minute"] = "second"
    burst: int | None = Field(default=None, ge=1, le=10**12)
    """How many may come at once. Default 1 for requests, `amount` for tokens (a request has many)."""


class SpikeArrestSettings(ConfigModel):
    """Settings of `spike-arrest`."""

    requests: Rate | None = None
    tokens: Rate | None = None
    """Prompt and the longest answer asked for, together."""
    scope: Literal["key", "user", "team", "organization", "model"] = "key"
    """Whose use is smoothed together; `model` is each model of each organization. Without a key: the app."""

    @model_validator(mode="after")
    def _some(self) -> "SpikeArrestSettings":
        if self.requests is None and self.tokens is None:
            raise ValueError("expected requests or tokens, for example requests: {amount: 10, per: second}")
        return self


class SpikeArrestPolicy(Policy[SpikeArrestSettings]):
    """Leaves paces in the call, which are checked with its charges. Counters are `<organization>|<rate>|<subject>`."""

    name: ClassVar[str] = "spike-arrest"
    settings_model = SpikeArrestSettings

    def __init__(self, settings: SpikeArrestSettings, tools: Tools) -> None:
        super().__init__(settings, tools)
        self._subject = _SUBJECTS[settings.scope]
        self._rates = [
            (unit == "tokens", f"|{rate.amount} {unit} per {rate.per}|", *_pace(rate, 1 if unit == "requests" else 0))
            for unit, rate in (("requests", settings.requests), ("tokens", settings.tokens))
            if rate is not None
        ]

    def check(self, call: Call) -> Answer:
        """Add a pace for each rate."""
        caller = call.caller
        if caller is None:
            return None
        subject, enforced = self._subject(call, caller), not call.shadow
        for tokens, rate, interval_us, burst_us in self._rates:
            amount = call.prompt_tokens + call.max_output if tokens else 1
            if amount * interval_us > burst_us + 1:
                return ratelimit.too_large_at_once(rate.strip("|"), amount, int(burst_us / interval_us))
            call.paces.append(Pace(caller.organization + rate + subject, interval_us, burst_us, amount, enforced))
        return None


def _pace(rate: Rate, least: int) -> tuple[float, float]:
    interval = PERIOD_US[rate.per] / rate.amount
    return interval, interval * (rate.burst or least or rate.amount)


def _key(call: Call, caller: Caller) -> str:
    return f"key:{caller.key}" if caller.key else f"app:{caller.app}"


_SUBJECTS: dict[str, Callable[[Call, Caller], str]] = {
    "key": _key,
    "user": lambda call, caller: f"user:{caller.user}",
    "team": lambda call, caller: f"team:{caller.team}",
    "organization": lambda call, caller: "",
    "model": lambda call, caller: f"model:{call.model}",
}
