"""Names of models beside those that are served, and models chosen by what a request asks: the body router's part."""

from typing import NotRequired, TypedDict


class ModelAlias(TypedDict):
    """Another name of a model, e.g. one that clients have built in."""

    name: str
    """What clients send as `model`; no model or adapter has it."""
    model: str
    """The served model or adapter."""


class PromptRoute(TypedDict):
    """Requests for one model that another one serves. Of those that match the first decides."""

    name: str
    """In metrics."""
    model: str
    """What the client asks for: a model, an adapter or an alias."""
    when: str
    """CEL condition over the request, e.g. `promptChars > 20000`."""
    to: str
    """What serves: a model, an adapter or an alias."""


class PromptClassifier(TypedDict):
    """A service that chooses the model, where no prompt route has."""

    model: str
    """Requests for this model or alias are classified."""
    url: str
    """Where it is: `https`, or `http` within the cluster with `plain_http`."""
    plain_http: NotRequired[bool]
    """Allow `http` to `*.svc` and `*.cluster.local`. Default false."""
    timeout_ms: NotRequired[int]
    """Milliseconds for everything, 10 to 10,000. Default 500."""
    fail_open: NotRequired[bool]
    """Whether a service that does not answer means `model` itself, rather than 503. Default false."""
