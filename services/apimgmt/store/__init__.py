"""Stores: the interface (`api.py`), its implementations, and the choice between them."""

from collections.abc import Mapping

from services.apimgmt import settings as settings_
from services.apimgmt.store.api import Store


def open_store(settings: settings_.SqliteStore | settings_.ValkeyStore, environ: Mapping[str, str]) -> Store:
    """Return the store that the settings name; the caller awaits its `open`.

    Args:
        settings: `Settings.store`.
        environ: Where address and secrets of a server are (`PENSTOCK_STORE_ADDRESS`, `PENSTOCK_STORE_PASSWORD`).

    Raises:
        StoreError: The environment lacks what the settings ask for.
    """
    if isinstance(settings, settings_.SqliteStore):
        from services.apimgmt.store.sqlite import SqliteStore

        return SqliteStore(settings)
    from services.apimgmt.store.valkey import ValkeyStore

    return ValkeyStore(settings, environ)
