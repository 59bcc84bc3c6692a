"""The UI's address and its password, as the settings say."""

from collections.abc import Set
from urllib.parse import urlsplit

from stocks_assets.settings import Settings
from stocks_assets.stack import secrets

USER = "stocks"


def ui_password(settings: Settings) -> str:
    """Return the password of the UI: as set, or the one that was generated for the home folder."""
    if settings.ui_password is not None:
        return settings.ui_password.get_secret_value()
    return secrets.load_or_create(settings.home).ui_password


def hosts(settings: Settings) -> Set[str]:
    """Return the names by which people may open the UI."""
    local = {"127.0.0.1", "localhost", "::1"}
    named = urlsplit(settings.ui_url).hostname if settings.ui_url else None
    return local | ({named} if named else set())


def tls_host(settings: Settings) -> str | None:
    """Return the `Host` of requests that come by TLS, through a proxy: that of an https:// URL."""
    url = urlsplit(settings.ui_url or "")
    if url.scheme != "https":
        return None
    return url.netloc.rpartition("@")[2].removesuffix(":443").lower()
