"""What a test needs of the system and does not find: it skips with the reason, or fails where all has to be there."""

import os
from typing import NoReturn

import pytest


def missing(what: object) -> NoReturn:
    """Skip; fail with `PENSTOCK_TEST_TOOLS=required`, as CI sets it."""
    if os.environ.get("PENSTOCK_TEST_TOOLS") == "required":
        pytest.fail(str(what))
    pytest.skip(str(what))
