"""Who may ask: web pages of other sites may not act through a user's browser, under whatever name they reach us."""

from collections.abc import Collection
from urllib.parse import urlsplit

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def is_own_host(host: str, allowed: Collection[str]) -> bool:
    """Tell whether a request was sent to a name of this server, and not to one that merely leads here.

    Args:
        host: the ``Host`` header.
        allowed: names without a port; ``"*"`` for any.
    """
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    return "*" in allowed or name.lower() in allowed


def may_act(method: str, origin: str | None, host: str, origins: Collection[str]) -> bool:
    """Tell whether a request that can change something comes from this server's own pages, or from no page.

    Args:
        method: of the request.
        origin: the ``Origin`` header, which browsers add and scripts of a page cannot change.
        host: the ``Host`` header.
        origins: other sites that were named.
    """
    if method in ("GET", "HEAD", "OPTIONS") or origin is None:
        return True
    return origin.rstrip("/") in origins or urlsplit(origin).netloc.lower() == host.lower()
