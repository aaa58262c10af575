"""The models, adapters and aliases that the router knows, and OpenAI's answers about them."""

from urllib.parse import unquote

import orjson

from services.bodyrouter.settings import Settings

OWNER = "penstock"


class Catalogue:
    """All served names, and the finished bodies of `GET /v1/models` and `GET /v1/models/{id}`."""

    def __init__(self, settings: Settings, created: int) -> None:
        """Render the answers once.

        Args:
            settings: models with their adapters, and aliases; names are unique.
            created: Unix time, seconds, that the answers give as `created`.
        """
        self.base: dict[str, str | None] = {}
        """Served name -> the base model of an adapter, None for a model."""
        for model in settings.models:
            self.base[model.name] = None
            self.base.update(dict.fromkeys(model.adapters, model.name))
        roots = {name: base or name for name, base in self.base.items()}
        roots |= {alias.name: alias.model for alias in settings.aliases}
        cards = {name: _card(name, root, self.base.get(name), created) for name, root in roots.items()}
        self.listing = orjson.dumps({"object": "list", "data": list(cards.values())})
        self._cards = {name: orjson.dumps(card) for name, card in cards.items()}

    def card(self, identifier: str) -> bytes | None:
        """Return the answer for one model; `identifier` as in the path, percent-encoded or not. None if unknown."""
        return self._cards.get(identifier) or self._cards.get(unquote(identifier))


def _card(name: str, root: str, base: str | None, created: int) -> dict[str, object]:
    """Make a model object with the fields that OpenAI and vLLM share (`root`, `parent` as vLLM has them)."""
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": OWNER,
        "root": root,
        "parent": base,
    }
