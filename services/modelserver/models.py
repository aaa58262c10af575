"""The models one replica serves: names of the base model, and LoRA adapters that come and go."""

import os
import secrets
import time

from services.modelserver.http import HttpError
from services.modelserver.settings import Settings


class Models:
    """Which names are served. Adapters keep the order in which they were loaded."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.adapters: dict[str, str] = dict(settings.adapters)

    @property
    def base(self) -> str:
        """The base model's first name, which labels metrics and stands for requests that name no model."""
        return self._settings.served_names[0]

    def resolve(self, name: object) -> tuple[str, str | None]:
        """Return (name to answer with, adapter or None). Raises HttpError 404 for a model that isn't served."""
        if not name:
            return self.base, None
        if name in self._settings.served_names:
            return str(name), None
        if name in self.adapters:
            return str(name), str(name)
        aliases = ", ".join(self._settings.served_names)
        message = f"The model `{name}` does not exist. Valid aliases: {aliases}."
        raise HttpError(404, "NotFoundError", message, "model")

    def listing(self) -> dict[str, object]:
        """Return the body of GET /v1/models."""
        created = int(time.time())
        length = self._settings.engine.max_model_len
        cards = [_card(name, self._settings.model, None, length, created) for name in self._settings.served_names]
        cards += [_card(name, path, self.base, None, created) for name, path in self.adapters.items()]
        return {"object": "list", "data": cards}

    def load(self, name: object, path: object, in_place: bool) -> str:
        """Load an adapter; return vLLM's message. Raises HttpError."""
        if not (name and path and isinstance(name, str) and isinstance(path, str)):
            raise HttpError(400, "InvalidUserInput", "Both 'lora_name' and 'lora_path' must be provided.")
        if name in self.adapters and not in_place:
            message = (
                f"The lora adapter '{name}' has already been loaded. If you want to load the adapter in place, "
                "set 'load_inplace' to True."
            )
            raise HttpError(400, "InvalidUserInput", message)
        if not self._settings.engine.max_loras:
            raise HttpError(400, "BadRequestError", f"Loading lora {name} failed: LoRA is not enabled")
        if self._settings.check_lora_paths and not os.path.isdir(path):
            raise HttpError(404, "NotFoundError", f"Loading lora {name} failed: No adapter found for {path}")
        self.adapters[name] = path
        return f"Success: LoRA adapter '{name}' added successfully."

    def unload(self, name: object) -> str:
        """Unload an adapter; return vLLM's message. Raises HttpError."""
        if not name or not isinstance(name, str):
            raise HttpError(400, "InvalidUserInput", "'lora_name' needs to be provided to unload a LoRA adapter.")
        if name not in self.adapters:
            raise HttpError(404, "NotFoundError", f"The lora adapter '{name}' cannot be found.")
        del self.adapters[name]
        return f"Success: LoRA adapter '{name}' removed successfully."


def _card(name: str, root: str, parent: str | None, length: int | None, created: int) -> dict[str, object]:
    permission = {
        "id": f"modelperm-{secrets.token_hex(8)}",
        "object": "model_permission",
        "created": created,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "vllm",
        "root": root,
        "parent": parent,
        "max_model_len": length,
        "permission": [permission],
    }
