"""Stacks that data path tests share, each started only where a test asks for it, and ended with the last of them.

Files that share one name its `xdist_group`, so that one worker starts it.
"""

from collections.abc import Callable, Iterator

import httpx2
import pytest
from openai import OpenAI

from tests.dataplane.echo import SETTINGS, with_echo_replicas
from tests.support.local import stack
from tests.support.stack import Stack, running_stack

__all__ = ["stack"]


@pytest.fixture(scope="package")
def echo() -> Iterator[Stack]:
    """Two models of one echo replica each, behind body router and pickers."""
    with running_stack(SETTINGS, change=with_echo_replicas) as running:
        yield running


MakeClient = Callable[..., OpenAI]
"""(base URL, API key) -> client."""


@pytest.fixture
def openai_client() -> Iterator[MakeClient]:
    """Make OpenAI clients for a base URL. They do not retry, so that each request is one request."""
    made: list[OpenAI] = []

    def make(base_url: str, api_key: str = "sk-test") -> OpenAI:
        # Proxies of the environment must not stand between a test and this machine.
        http = httpx2.Client(trust_env=False, timeout=30)
        made.append(OpenAI(base_url=base_url, api_key=api_key, max_retries=0, http_client=http))
        return made[-1]

    yield make
    for client in made:
        client.close()
