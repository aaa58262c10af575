"""One policy at its place in a chain: condition, shadow mode, failures, counting."""

import logging
import traceback
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

from services.apimgmt.call import Call, Finding, Verdict
from services.apimgmt.metrics import Tally
from services.apimgmt.policies.api import Policy
from services.extproc.api import Answer, Reply, deny

Condition = Callable[[Call], bool]
"""Whether a policy applies to a request (CEL, `conditions.py`)."""

logger = logging.getLogger("penstock.apimgmt")


class Step:
    """Made when a chain is compiled; `run` and `judge` are called per request."""

    __slots__ = ("_check", "_plain", "condition", "policy", "shadow", "tally")

    def __init__(self, policy: Policy[Any], tally: Tally, condition: Condition | None, *, shadow: bool) -> None:
        self.policy, self.tally, self.condition, self.shadow = policy, tally, condition, shadow
        self._check = policy.check
        self._plain = condition is None and not shadow

    def run(self, call: Call) -> Answer:
        """Ask the policy. What is no awaitable is judged already: None to go on, a reply to end with."""
        tally = self.tally
        began = perf_counter()
        try:
            answer = self._check(call) if self._plain else self._special(call)
        except Exception as error:  # noqa: BLE001 - whatever a policy raises must not end the server
            answer = self.failed(call, error)
        tally.seconds += perf_counter() - began
        if answer is None:
            tally.passed += 1
            return None
        if answer is _SKIPPED:
            return None
        return self.judge(call, answer) if isinstance(answer, Reply) else answer

    async def finish(self, call: Call, answer: Awaitable[Reply | None]) -> Reply | None:
        """Wait for what `run` returned, and judge it."""
        began = perf_counter()
        try:
            reply = await answer
        except Exception as error:  # noqa: BLE001 - as above
            reply = self.failed(call, error)
        self.tally.seconds += perf_counter() - began
        if reply is None:
            self.tally.passed += 1
            return None
        return None if reply is _SKIPPED else self.judge(call, reply)

    def judge(self, call: Call, reply: Reply) -> Reply | None:
        """Write down what a policy found; return what takes effect."""
        verdict = Verdict.DENY if reply.status >= 400 else Verdict.ANSWER
        self.tally.count(verdict.value, reply.details, self.shadow)
        call.findings.append(Finding(self.policy.name, verdict, reply.details, self.shadow))
        return None if self.shadow else reply

    def failed(self, call: Call, error: Exception) -> Reply:
        """Log a failure. Returns the denial, or `_SKIPPED` where the policy may be passed over."""
        name = self.policy.name
        frames = traceback.extract_tb(error.__traceback__)[-5:]  # an exception's text may quote a body or a key
        logger.error(
            "policy failed",
            extra={
                "policy": name,
                "request": call.id,
                "error": type(error).__name__,
                "at": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
                "fail_open": self.policy.fail_open,
            },
        )
        if self.policy.fail_open:
            self.tally.count(Verdict.ERROR.value, "policy_error", self.shadow)
            call.findings.append(Finding(name, Verdict.ERROR, "policy_error", self.shadow))
            return _SKIPPED
        return deny(500, f"The policy {name} failed. Try again.", type="server_error", code="policy_error")

    def _special(self, call: Call) -> Answer:
        if self.condition is not None and not self.condition(call):
            self.tally.count(Verdict.SKIP.value, "", self.shadow)
            return _SKIPPED
        if not self.shadow:
            return self._check(call)
        call.enter(shadow=True)
        before, answer = dict(call.headers), None
        try:
            answer = self._check(call)
        finally:
            if answer is None or isinstance(answer, Reply):
                _leave(call, before)
        return answer if answer is None or isinstance(answer, Reply) else _shadowed(call, answer, before)


async def _shadowed(call: Call, answer: Awaitable[Reply | None], before: dict[str, str]) -> Reply | None:
    try:
        return await answer
    finally:
        _leave(call, before)


def _leave(call: Call, headers: dict[str, str]) -> None:
    """Leave shadow mode, without what the policy did to the answer's headers."""
    call.enter(shadow=False)
    call.headers = headers


_SKIPPED = Reply(0, b"")
"""Stands for "go on, and this was no pass"."""
