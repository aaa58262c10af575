"""What `penstock local` prints."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

_NARROW = 76


def summary(state: Mapping[str, Any], *, detached: bool = False) -> str:
    """Return how to use a running stack: endpoint, models, an example `curl` and an OpenAI client."""
    endpoint, models = state["endpoint"], state["models"]
    model = models[0] if models else "MODEL"
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Say hello."}]})
    key, portal = state.get("api_key"), state.get("admin_url")
    header = f" \\\n    -H 'authorization: Bearer {key}'" if key else ""
    stop = f"penstock local down --env {state['environment']}" if detached else "Ctrl-C"
    return f"""
Serving `{state["environment"]}` at {endpoint}
Models: {", ".join(models) or "none"}
{_management(portal, state.get("developer"))}
  curl {endpoint}/chat/completions -H 'content-type: application/json'{header} \\
    -d {shlex.quote(body)}

  from openai import OpenAI
  client = OpenAI(base_url={json.dumps(endpoint)}, api_key={json.dumps(key or "unused")})
  answer = client.chat.completions.create(
      model={json.dumps(model)}, messages=[{{"role": "user", "content": "Say hello."}}])
  print(answer.choices[0].message.content)

{not_realized_lines(state)}
Stop with {stop}. Logs: penstock local logs [PIECE]
"""


def _management(url: str | None, developer: str | None) -> str:
    if not url:
        return ""
    return f"Developer portal: {url} (to sign in: penstock keys issue --developer {developer})\n"


def not_realized_lines(state: Mapping[str, Any]) -> str:
    """Return a warning for each thing that requests pass by here, and one line that counts the rest by kind."""
    entries = state["not_realized"]
    if not entries:
        return "Everything declared is realized."
    warnings = [f"WARNING: {entry['what']}: {entry['reason']}" for entry in entries if entry["passed_by"]]
    rest = [entry["what"].split()[0] for entry in entries if not entry["passed_by"]]
    cloud = sum(kind.startswith("gcp:") for kind in rest)
    kinds = [f"{cloud} types of Google Cloud"] * bool(cloud)
    kinds += dict.fromkeys(kind for kind in rest if not kind.startswith("gcp:"))
    line = f"Declared but without effect here: {', '.join(kinds)} (penstock local status --verbose)"
    return "\n".join([*warnings, line])


def not_realized(state: Mapping[str, Any]) -> str:
    """Return everything that is declared but has no effect here, grouped by the reason."""
    reasons: dict[str, list[str]] = {}
    for entry in state["not_realized"]:
        names = entry["objects"]
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        reasons.setdefault(entry["reason"], []).append(f"{entry['what']} ({shown})")
    lines = ["Declared, without effect on this machine:"]
    for reason, items in reasons.items():
        lines += [f"  {reason}:", *(f"    {item}" for item in items)]
    return "\n".join(lines)


def table(state: Mapping[str, Any]) -> str:
    """Return one line per piece."""
    rows = [("NAME", "KIND", "STATE", "ADDRESS", "PID", "RESTARTS")]
    for piece in state["pieces"]:
        columns = ("name", "kind", "state", "address", "pid", "restarts")
        rows.append(tuple("-" if piece[column] is None else str(piece[column]) for column in columns))  # type: ignore[arg-type]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def public(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state for `status --json`: without what only the supervisor needs."""
    pieces = [{key: value for key, value in piece.items() if key != "identity"} for piece in state["pieces"]]
    return {**state, "pieces": pieces}
