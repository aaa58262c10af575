"""Scripted policy: JavaScript that looks at a request, and may refuse or change it.

The script has a function `check(request)`. Its argument is a plain object as conditions see it (`conditions.py`):
`{request: {path, method, headers, model, stream}, caller: {organization, team, user, app, key}, product, promptTokens,
body}`. It returns nothing, or an object with one or more of

- `deny: {status, message, code}` (400 to 599, default 403): refuse;
- `set: {headers: {...}}`: set request headers that the setting `setHeaders` lists;
- `body: {...}`: replace the request's body.

Scripts run in processes of their own, without environment, files or network, in a new context for each request: what
a script keeps in variables is gone after it. Limits hold for CPU time and memory; a failing script answers 500, or lets
the request pass where `failOpen` is set. Language: ECMAScript 2023 as in QuickJS-ng; no modules, timers or I/O.
"""

import logging
from typing import ClassVar

import orjson
import quickjs  # type: ignore[import-untyped]
from pydantic import Field

from services.apimgmt.call import Call, Finding, Verdict
from services.apimgmt.conditions import facts
from services.apimgmt.policies import effects
from services.apimgmt.policies.api import Policy, Tools
from services.apimgmt.policies.effects import EffectError, SettableHeader
from services.apimgmt.sandbox.pool import Pool, ScriptError
from services.extproc.api import Answer, Reply, deny
from services.extproc.config import ConfigModel

logger = logging.getLogger("penstock.apimgmt")

FAILED, REFUSED = "script_failed", "refused_by_script"
"""Codes of a failure, and of a denial that names none."""

_EFFECTS = frozenset({"deny", "set", "body"})


class ScriptSettings(ConfigModel):
    """Settings of `script`."""

    source: str = Field(min_length=1, max_length=64 * 1024)
    """The script: JavaScript with a function `check(request)`."""
    body: bool = True
    """Whether the script gets the body; without it calls are cheaper."""
    set_headers: list[SettableHeader] = Field(default_factory=list)
    """Request headers that the script may set for the replica."""
    cpu_ms: int = Field(default=50, ge=1, le=1000)
    """CPU time of one call, milliseconds."""
    memory_mb: int = Field(default=16, ge=1, le=256)
    """Memory of one call, MiB, the request included."""
    processes: int = Field(default=1, ge=1, le=16)
    """Calls at the same time; more wait."""
    fail_open: bool = False


class ScriptPolicy(Policy[ScriptSettings]):
    """See the module's text."""

    name: ClassVar[str] = "script"
    settings_model = ScriptSettings

    def __init__(self, settings: ScriptSettings, tools: Tools) -> None:
        super().__init__(settings, tools)
        _check_syntax(settings.source)
        self._allowed = frozenset(settings.set_headers)
        self._pool = Pool(
            settings.source,
            cpu_s=settings.cpu_ms / 1000,
            memory_bytes=settings.memory_mb * 1024 * 1024,
            size=settings.processes,
        )
        self._reasons: set[str] = set()
        """Failures that were logged already."""

    async def start(self) -> None:
        """Start the processes. A script that cannot be used is logged; its requests fail."""
        try:
            await self._pool.start()
        except ScriptError as error:
            logger.error("a script cannot be used", extra={"reason": str(error)})

    async def stop(self) -> None:
        """End the processes."""
        await self._pool.stop()

    def check(self, call: Call) -> Answer:
        """Run the script."""
        return self._run(call)

    async def _run(self, call: Call) -> Reply | None:
        try:
            result = await self._pool.call(orjson.dumps(facts(call, body=self.settings.body)))
            return self._apply(call, orjson.loads(result))
        except (ScriptError, EffectError, ValueError, TypeError) as error:
            return self._failed(call, str(error) if isinstance(error, ScriptError | EffectError) else "no JSON")

    def _apply(self, call: Call, result: object) -> Reply | None:
        if result is None:
            return None
        if not isinstance(result, dict) or not result.keys() <= _EFFECTS:
            raise EffectError("the result is no object with deny, set or body")
        if result.get("deny") is not None:
            deny_ = result["deny"]
            if not isinstance(deny_, dict):
                raise EffectError("deny: expected an object")
            return effects.denial(deny_.get("status"), deny_.get("message"), deny_.get("code"), REFUSED)
        if result.get("set") is not None:
            changes = result["set"]
            if not isinstance(changes, dict) or not changes.keys() <= {"headers"}:
                raise EffectError("set: expected an object with headers")
            effects.set_headers(call, changes.get("headers", {}), self._allowed)
        if result.get("body") is not None:
            effects.replace_body(call, result["body"])
        return None

    def _failed(self, call: Call, reason: str) -> Reply | None:
        if reason not in self._reasons and len(self._reasons) < 32:
            self._reasons.add(reason)
            logger.error("a script failed", extra={"reason": reason, "request": call.id})
        if self.settings.fail_open:
            call.findings.append(Finding(self.name, Verdict.ERROR, FAILED, call.shadow))
            return None
        return deny(500, "A script that has to agree to this request failed.", type="server_error", code=FAILED)


def _check_syntax(source: str) -> None:
    """Raise ValueError for what is no JavaScript. Nothing of it runs here."""
    try:
        quickjs.Context().eval("(source) => { new Function(source) }")(source)
    except quickjs.JSException as error:
        raise ValueError(f"source: {str(error).partition(chr(10))[0]}") from None
