"""Which model serves a request: prompt routes, then a classifier, then aliases.

The route of a request is chosen before any later callout sees it, so the model can only be changed here.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from services.bodyrouter.asked import VARIABLES, Asked
from services.bodyrouter.settings import Classifier, PromptRoute, Settings
from services.cel.compiler import Predicate
from services.cel.values import Failure
from services.remote.json_service import BadAnswer, JsonService, Unavailable


class Routing:
    """The rules of one configuration. Made only where there are rules."""

    def __init__(self, settings: Settings, count: Callable[[str, str], None]) -> None:
        """`count` is told the kind and the name of what decided."""
        self._count = count
        self._aliases = {alias.name: alias.model for alias in settings.aliases}
        self._routes: dict[str, list[tuple[PromptRoute, Predicate[Asked]]]] = {}
        for route in settings.prompt_routes:
            self._routes.setdefault(route.model, []).append((route, Predicate(route.when, VARIABLES)))
        self._classifiers = {c.model: Classification(c, settings) for c in settings.classifiers}
        self.names = frozenset(self._aliases) | self._routes.keys() | self._classifiers.keys()
        """Models that clients may ask for and that rules apply to."""

    def choose(self, asked: Asked) -> str | Awaitable[str]:
        """Return the model that serves, or an awaitable of it, which may raise Unavailable."""
        for route, matches in self._routes.get(asked.model, ()):
            try:
                found = matches(asked)
            except Failure:
                self._count("failed", route.name)
                continue
            if found:
                self._count("route", route.name)
                return self.serving(route.to)
        classifier = self._classifiers.get(asked.model)
        if classifier is None:
            return self.serving(asked.model)
        return self._classified(classifier, asked)

    def serving(self, model: str) -> str:
        """Return what an alias stands for; other names stand for themselves."""
        return self._aliases.get(model, model)

    async def _classified(self, classifier: "Classification", asked: Asked) -> str:
        try:
            model = await classifier.ask(asked)
        except Unavailable:
            self._count("failed", f"classifier:{asked.model}")
            if not classifier.fail_open:
                raise
            return self.serving(asked.model)
        self._count("classifier", asked.model)
        return model

    async def stop(self) -> None:
        """Close connections."""
        for classifier in self._classifiers.values():
            await classifier.stop()


class Classification:
    """Asks a classifier: `POST {"model", "path", "body"}`, answered by `{"model": <a served model or adapter>}`."""

    def __init__(self, settings: Classifier, served: Settings) -> None:
        self._service, self._started = JsonService(settings), False
        self._known = {name for model in served.models for name in (model.name, *model.adapters)}
        self.fail_open = settings.fail_open

    async def ask(self, asked: Asked) -> str:
        """Return the classifier's model. Raises Unavailable."""
        if not self._started:
            self._service.start()
            self._started = True
        if not self._service.admits():
            raise Unavailable("left alone")
        path = asked.exchange.request_headers.get(":path").partition("?")[0]
        question = {"model": asked.model, "path": path, "body": asked.body}
        return await self._service.ask(question, self._read)

    async def stop(self) -> None:
        """Close connections."""
        await self._service.stop()

    def _read(self, answer: Any) -> str:
        model = answer.get("model") if isinstance(answer, dict) else None
        if not isinstance(model, str) or model not in self._known:
            raise BadAnswer('the answer has no "model" that is served')
        return model
