"""Comparisons as text and as JSON."""

import json
import time
from typing import Any

from cli.policy.comparison import Comparison, Difference
from services.apimgmt.recording import Header, Recorded
from services.apimgmt.replay import Decision


def as_text(comparison: Comparison, header: Header, before: str, after: str) -> str:
    """Return the report; `before` and `after` name what is compared."""
    lines = [f"{comparison.requests:,} recorded requests: {before} against {after}"]
    lines.append(f"  {comparison.same:,} decided alike, {comparison.changed:,} differently")
    lines += _warnings(comparison, header)
    for difference in comparison.differences:
        lines.append(f"\n{difference.count:,} x {_shown(difference.before)}  ->  {_shown(difference.after)}")
        lines += [f"    {_example(request)}" for request in difference.examples]
    if comparison.counts:
        lines.append("\nDecisions of the new configuration")
        for (verdict, policy, code, shadow), count in sorted(comparison.counts.items(), key=lambda c: (-c[1], c[0])):
            text = _shown(Decision(verdict, policy, code)) + (" (shadow)" if shadow else "")
            lines.append(f"  {count:>9,}  {text}")
    if comparison.left:
        lines.append("\nNot evaluated")
        lines += [f"  {one.policy} ({one.where}): {one.reason}" for one in comparison.left]
    return "\n".join(lines)


def as_json(comparison: Comparison, header: Header) -> str:
    """Return the report as JSON."""
    return json.dumps(
        {
            "requests": comparison.requests,
            "sampleRatio": header.sample_ratio,
            "bodies": header.bodies,
            "same": comparison.same,
            "changed": comparison.changed,
            "unknownApps": dict(comparison.unknown_apps),
            "passedOver": dict(comparison.passed_over),
            "differences": [_difference(difference) for difference in comparison.differences],
            "decisions": [
                {"verdict": verdict, "policy": policy, "code": code, "shadow": shadow, "count": count}
                for (verdict, policy, code, shadow), count in sorted(comparison.counts.items())
            ],
            "notEvaluated": [
                {"policy": one.policy, "where": one.where, "reason": one.reason} for one in comparison.left
            ],
        },
        indent=2,
    )


def _warnings(comparison: Comparison, header: Header) -> list[str]:
    lines = []
    if header.sample_ratio < 1:
        share = f"{header.sample_ratio:.3g}"
        lines.append(f"  limits see only what was recorded: a share of {share} of all requests (sampleRatio)")
    for app, count in comparison.unknown_apps.most_common(5):
        lines.append(f"  {count:,} requests of the app {app} left out: not declared; give --documents")
    for policy, count in comparison.passed_over.most_common():
        lines.append(f"  {count:,} requests left out that {policy} refused: it is not evaluated")
    return lines


def _difference(difference: Difference) -> dict[str, Any]:
    return {
        "before": _decision(difference.before),
        "after": _decision(difference.after),
        "count": difference.count,
        "examples": [
            {"id": r.id, "time": r.time, "organization": r.organization, "app": r.app, "user": r.user, "model": r.model}
            for r in difference.examples
        ],
    }


def _decision(decision: Decision) -> dict[str, str]:
    return {"verdict": decision.verdict, "policy": decision.policy, "code": decision.code}


def _shown(decision: Decision) -> str:
    return " ".join(part for part in (decision.verdict, decision.policy, decision.code) if part)


def _example(request: Recorded) -> str:
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(request.time))
    return f"{request.id}  {when}  {request.organization}/{request.app}  {request.user}  {request.model}"
