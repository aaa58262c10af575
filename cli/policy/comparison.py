"""What two runs decided on the same requests, set side by side."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from services.apimgmt.playable import Left
from services.apimgmt.recording import Recorded
from services.apimgmt.replay import Decision

REFUSED = "refused"

UNNAMED = Decision("deny")
"""Refused, but by no policy: the answer that was asked for is longer than the product's `maxOutputTokens`."""

OUTPUT_CAP = "maxOutputTokens"
"""How such refusals are called."""


@dataclass(slots=True)
class Difference:
    """Requests that one decision became another for."""

    before: Decision
    after: Decision
    count: int = 0
    examples: list[Recorded] = field(default_factory=list)


class Comparison:
    """See the module's text."""

    def __init__(
        self,
        requests: Sequence[Recorded],
        before: Sequence[Decision],
        after: Sequence[Decision],
        left: Collection[Left],
        *,
        bodies: bool,
        examples: int,
    ) -> None:
        """Compare.

        Args:
            requests: what was recorded.
            before: one run's decisions, or those of the recording.
            after: the other's.
            left: policies that were not evaluated in one of the runs.
            bodies: whether the recording has them.
            examples: requests kept per difference.
        """
        self.requests = len(requests)
        self.left = sorted(left, key=lambda one: (one.where, one.policy))
        self.unknown_apps: Counter[str] = Counter()
        """`organization/app` of requests whose caller is in no run's configuration -> requests."""
        self.passed_over: Counter[str] = Counter()
        """Policies that refused requests then and are not evaluated -> such requests."""
        self.same = 0
        self.counts: Counter[tuple[str, str, str, bool]] = Counter()
        """Verdict, policy, code, shadow of the later run -> requests."""
        self._differences: dict[tuple[Decision, Decision], Difference] = {}
        self._left, self._bodies = {one.policy for one in left}, bodies
        for request, old, new in zip(requests, before, after, strict=True):
            self._add(request, old, new, examples)

    @property
    def changed(self) -> int:
        """Requests that are decided differently."""
        return sum(difference.count for difference in self._differences.values())

    @property
    def differences(self) -> list[Difference]:
        """The most frequent first."""
        return sorted(self._differences.values(), key=lambda d: (-d.count, d.before.verdict, d.after.code))

    def _add(self, request: Recorded, old: Decision, new: Decision, examples: int) -> None:
        if "unknown" in (old.verdict, new.verdict):
            self.unknown_apps[f"{request.organization}/{request.app}"] += 1
            return
        if old.policy.partition("/")[0] in self._left:
            self.passed_over[old.policy] += 1
            return
        if old == UNNAMED and not self._bodies:
            self.passed_over[OUTPUT_CAP] += 1
            return
        if old == UNNAMED and new.verdict == "deny":
            old = new
        self.counts[new.verdict, new.policy, new.code, False] += 1
        for policy, code in new.shadow:
            self.counts["deny", policy, code, True] += 1
        key = replace(old, shadow=()), replace(new, shadow=())
        if key[0] == key[1]:
            self.same += 1
            return
        difference = self._differences.setdefault(key, Difference(*key))
        difference.count += 1
        if len(difference.examples) < examples:
            difference.examples.append(request)


def recorded_decision(request: Recorded) -> Decision:
    """Return what became of a request when it was recorded: answers of models and later filters count as passed."""
    denied = [found for found in request.verdicts if found.verdict == "deny" and not found.shadow]
    if denied:
        return Decision("deny", denied[0].policy, denied[0].code)
    return UNNAMED if request.outcome == REFUSED else Decision("pass")
