"""Request headers as conditions, scripts, external services and recordings may see them."""

from collections.abc import Iterator, Mapping

from services.extproc.api import Headers

CREDENTIAL_HEADERS = frozenset(
    {
        *("authorization", "proxy-authorization", "x-api-key", "api-key", "cookie", "set-cookie"),
        *("x-goog-api-key", "x-goog-iap-jwt-assertion", "x-serverless-authorization", "x-amz-security-token"),
        *("x-forwarded-client-cert", "x-apigateway-api-userinfo", "x-endpoint-api-userinfo"),
    }
)
"""Headers that carry credentials."""

IDENTITY = "x-penstock-"
"""Headers that tell who asks, once API management has set them. What stands there before, the client has made up."""


class VisibleHeaders(Mapping[str, str]):
    """Request headers without credentials, claims of identity and pseudo headers; of several values the first."""

    __slots__ = ("_headers",)

    def __init__(self, headers: Headers) -> None:
        self._headers = headers

    def __getitem__(self, name: str) -> str:
        if name in self:
            return self._headers.get(name)
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return name in self._headers and _visible(str(name))

    def __iter__(self) -> Iterator[str]:
        return (name for name in dict.fromkeys(name for name, _ in self._headers) if _visible(name))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _visible(name: str) -> bool:
    if "_" in name:  # some servers make `-` of it
        name = name.replace("_", "-")
    return name not in CREDENTIAL_HEADERS and name[:1] != ":" and not name.startswith(IDENTITY)
