"""Headers that tell what comes after who asks. Clients cannot set them: every copy that comes is removed.

The body router in front removes the whole family already, but for the agent; this holds where it is missing, too.
"""

import re

from services.apimgmt.call import Call
from services.bodyrouter.headers import canonical
from services.extproc.api import Exchange

FAMILY = "x-penstock-"
ORGANIZATION = "x-penstock-organization"
TEAM = "x-penstock-team"
USER = "x-penstock-user"
APP = "x-penstock-app"
KEY = "x-penstock-key"
"""Id of the API key; not there for tokens."""
PRODUCT = "x-penstock-product"
AGENT = "x-penstock-agent"
"""Which of an app's agents asks: sent by the client, believed of apps with `trustedAgent`."""

AUTHORIZATION, API_KEY = "authorization", "x-api-key"
CREDENTIALS = frozenset({AUTHORIZATION, API_KEY})

_AGENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}", re.ASCII)


def clean(exchange: Exchange) -> None:
    """Remove the family as clients sent it, with `_` for `-` as well, since some servers make them one."""
    remove = exchange.request_changes.remove
    for name, _ in exchange.request_headers:
        if "penstock" in name and canonical(name).startswith(FAMILY):
            remove.add(name)


def hide(exchange: Exchange) -> None:
    """Remove credentials, so that neither replicas nor their logs see them."""
    remove = exchange.request_changes.remove
    for name, _ in exchange.request_headers:
        if name in CREDENTIALS or ("_" in name and canonical(name) in CREDENTIALS):
            remove.add(name)


def hand_on(call: Call) -> None:
    """Set the headers of the call's caller; find its agent."""
    caller = call.caller
    assert caller is not None  # noqa: S101 - called when it was found
    headers = call.exchange.request_changes.set
    headers[ORGANIZATION] = caller.organization
    headers[TEAM] = caller.team
    headers[USER] = caller.user
    headers[APP] = caller.app
    if caller.key:
        headers[KEY] = caller.key
    if caller.trusted_agent:
        agents = call.exchange.request_headers.get_all(AGENT)
        if len(agents) == 1 and _AGENT.fullmatch(agents[0]):
            call.agent = headers[AGENT] = agents[0]
