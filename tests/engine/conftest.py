"""Fixtures of the engine tests. Everything here needs binaries that are built from Go modules, or it is skipped."""

from tests.support.engine.fixtures import api_server

__all__ = ["api_server"]
