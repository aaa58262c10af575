"""External callout: asks a service over HTTP whether a request may go on.

Request: `POST` with `{"id", "policy", "request": {"path", "method", "headers", "model", "stream"}, "caller":
{"organization", "team", "user", "app", "key"}, "product", "promptTokens"}`, with `send: body` also `"body"`. Headers
that carry credentials are never among them.

Answer: status 200 and `{"allow": true or false}`. With false also `status` (400 to 599, default 403), `message`,
`code`; with true also `setHeaders` (names that the setting `setHeaders` lists) and `body` (takes the place of the
request's). Everything else, also another status, a redirect, or more than `maxAnswerBytes`, counts as a failure, and a
failure answers 503, or lets the request pass where `failOpen` is set.
"""

from typing import Any, ClassVar, Literal

from pydantic import Field

from services.apimgmt.call import Call, Finding, Verdict
from services.apimgmt.conditions import facts
from services.apimgmt.policies import effects
from services.apimgmt.policies.api import Policy, Tools
from services.apimgmt.policies.effects import EffectError, SettableHeader
from services.extproc.api import Answer, Reply, deny
from services.remote.json_service import JsonService, RemoteSettings, Unavailable

UNAVAILABLE, REFUSED = "external_unavailable", "refused_by_service"
"""Codes of a failure, and of a denial that names none."""


class ExternalSettings(RemoteSettings):
    """Settings of `external`. Secrets in `headers` come from key-value maps: `${kvm:<map>/<key>}` (`kvm.py`)."""

    send: Literal["headers", "body"] = "headers"
    """Whether the service gets the request's body."""
    set_headers: list[SettableHeader] = Field(default_factory=list)
    """Request headers that the service may set for the replica."""
    fail_open: bool = False


class ExternalPolicy(Policy[ExternalSettings]):
    """See the module's text."""

    name: ClassVar[str] = "external"
    settings_model = ExternalSettings

    def __init__(self, settings: ExternalSettings, tools: Tools) -> None:
        super().__init__(settings, tools)
        self._service = JsonService(settings)
        self._allowed = frozenset(settings.set_headers)

    async def start(self) -> None:
        """Open the connection pool."""
        self._service.start()

    async def stop(self) -> None:
        """Close it."""
        await self._service.stop()

    def check(self, call: Call) -> Answer:
        """Ask the service, unless it is left alone."""
        return self._ask(call) if self._service.admits() else self._unavailable(call)

    async def _ask(self, call: Call) -> Reply | None:
        question = {"id": call.id, "policy": self.name, **facts(call, body=self.settings.send == "body")}
        try:
            return await self._service.ask(question, lambda answer: self._apply(call, answer))
        except Unavailable:
            return self._unavailable(call)

    def _apply(self, call: Call, answer: Any) -> Reply | None:
        if not isinstance(answer, dict) or type(answer.get("allow")) is not bool:
            raise EffectError('the answer has no "allow" that is true or false')
        if not answer["allow"]:
            return effects.denial(answer.get("status"), answer.get("message"), answer.get("code"), REFUSED)
        if answer.get("setHeaders") is not None:
            effects.set_headers(call, answer["setHeaders"], self._allowed)
        if answer.get("body") is not None:
            effects.replace_body(call, answer["body"])
        return None

    def _unavailable(self, call: Call) -> Reply | None:
        if self.settings.fail_open:
            call.findings.append(Finding(self.name, Verdict.ERROR, UNAVAILABLE, call.shadow))
            return None
        text = "A service that has to agree to this request does not answer. Try again."
        return deny(503, text, type="server_error", code=UNAVAILABLE, headers={"retry-after": "1"})
