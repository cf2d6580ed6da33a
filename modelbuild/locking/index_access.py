"""Reading from a package index ourselves, with what pip and uv are configured with."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from modelbuild.environment.indexes import configured_urls

if TYPE_CHECKING:
    from http.client import HTTPResponse
    from urllib.request import BaseHandler


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexAccess:
    """Opens URLs as pip and uv would: their credentials, netrc, certificate and proxy."""

    variables: Mapping[str, str]
    """As of `uv_variables`."""

    def open(self, url: str, headers: Mapping[str, str] = {}, method: str = "GET") -> HTTPResponse:
        """Raises OSError (urllib.error.HTTPError for a status of 400 and above)."""
        from urllib.error import HTTPError
        from urllib.request import Request, build_opener

        request = Request(url, headers=dict(headers), method=method)  # noqa: S310
        if authorization := self._authorization(url):
            # Unredirected: where an index redirects to another host, that one gets no password.
            request.add_unredirected_header("Authorization", authorization)
        opener = build_opener(*self._handlers(urlsplit(url).hostname or ""))
        timeout = float(self.variables.get("UV_HTTP_TIMEOUT", "30"))
        try:
            response: HTTPResponse = opener.open(request, timeout=timeout)
        except HTTPError as error:
            error.close()  # it holds the connection
            raise
        return response

    def _handlers(self, host: str) -> Iterator[BaseHandler]:
        import ssl
        from urllib.request import HTTPSHandler, ProxyHandler

        context = ssl.create_default_context(cafile=self.variables.get("SSL_CERT_FILE"))
        if host in self.variables.get("UV_INSECURE_HOST", "").split():
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if client := self.variables.get("SSL_CLIENT_CERT"):
            context.load_cert_chain(client)
        yield HTTPSHandler(context=context)
        if proxy := self.variables.get("ALL_PROXY"):
            yield ProxyHandler({"http": proxy, "https": proxy})

    def _authorization(self, url: str) -> str | None:
        from base64 import b64encode
        from netrc import NetrcParseError, netrc

        login = self._logins().get(_host(url))
        if login is None:
            with suppress(OSError, NetrcParseError):
                entry = netrc(self.variables.get("NETRC")).authenticators(
                    urlsplit(url).hostname or ""
                )
                login = (entry[0], entry[2]) if entry else None
        if login is None:
            return None
        return "Basic " + b64encode(f"{login[0]}:{login[1]}".encode()).decode()

    def _logins(self) -> dict[str, tuple[str, str]]:
        """User names and passwords by host and port, from the URLs of indexes."""
        logins = {}
        for url in configured_urls(self.variables):
            name, _, plain = url.rpartition("=") if "=" in url.split("://")[0] else ("", "", url)
            parts = urlsplit(plain)
            prefix = f"UV_INDEX_{re.sub(r'[^A-Za-z0-9]', '_', name).upper()}_"
            user = parts.username or self.variables.get(f"{prefix}USERNAME")
            password = parts.password or self.variables.get(f"{prefix}PASSWORD") or ""
            if user:
                logins[_host(plain)] = (unquote(user), unquote(password))
        return logins


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2].lower()
