"""How to call the gateway, ready to be pasted: names from outside are quoted for the shell and for Python."""

import json
import shlex

UNKNOWN = "https://GATEWAY"
"""Shown where the portal does not know the gateway's address."""


def curl(endpoint: str | None, model: str, key: str) -> str:
    """Return a command."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello"}]}, ensure_ascii=False)
    address = f"{(endpoint or UNKNOWN).rstrip('/')}/v1/chat/completions"
    return (
        f"curl {shlex.quote(address)} \\\n"
        f"  -H {shlex.quote(f'Authorization: Bearer {key}')} \\\n"
        "  -H 'Content-Type: application/json' \\\n"
        f"  -d {shlex.quote(body)}"
    )


def program(endpoint: str | None, model: str, key: str) -> str:
    """Return a Python program."""
    address = f"{(endpoint or UNKNOWN).rstrip('/')}/v1"
    return f"""from openai import OpenAI

client = OpenAI(
    base_url={json.dumps(address)},
    api_key={json.dumps(key)},
)
answer = client.chat.completions.create(
    model={json.dumps(model)},
    messages=[{{"role": "user", "content": "Hello"}}],
)
print(answer.choices[0].message.content)"""
