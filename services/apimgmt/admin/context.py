"""What the admin API and the portal work with."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from services.apimgmt.policies.api import Tools
from services.apimgmt.settings import Settings
from services.apimgmt.store.api import Store

MIN_TOKEN = 32
"""Shortest admin token, characters: as many as 128 random bits have in hexadecimal."""


@dataclass(slots=True)
class AdminContext:
    """One per process; `app.state.context`. The service replaces `settings` when the config file changes."""

    store: Store
    settings: Settings
    pepper: bytes
    """Of the digests of keys (`keys.digest`)."""
    clock: Callable[[], float]
    """Unix seconds; `time.time`, or what a test sets."""
    admin_token: str | None = None
    """PENSTOCK_ADMIN_TOKEN: opens everything, for the first steps and for automation. None: personal keys only."""
    seal: Callable[[str, str, str], str] | None = None
    """Seals a value of a key-value map: (map, entry, value) -> what is stored. None: values cannot be set."""
    tools: Tools | None = None
    """What policies of products are made with to check them; without it only those that need nothing can be."""
    directory: Any = None
    """`directory.Directory` of the data path in this process, if it has one."""
    extras: dict[str, Any] = field(default_factory=dict)
    """What mounted routers share by an agreed name."""

    def __post_init__(self) -> None:
        if self.admin_token is not None and len(self.admin_token) < MIN_TOKEN:
            raise ValueError(
                f"PENSTOCK_ADMIN_TOKEN has {len(self.admin_token)} characters, expected at least {MIN_TOKEN};"
                " make one with: openssl rand -hex 32"
            )

    @property
    def now(self) -> int:
        """Unix seconds."""
        return int(self.clock())
