"""Who may ask: a token, no foreign Host or Origin, small bodies; and headers that forbid the rest.

A web page of somebody else, open in the same browser, can send requests to a server of this
machine, and by a name that resolves to 127.0.0.1 (DNS rebinding) also read the answers. Both show
in ``Host`` and ``Origin``.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response

from semsynth.app.config import MAX_UPLOAD_BYTES, AppConfig
from semsynth.app.refused import Refused

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

TOKEN_HEADER = "X-Semsynth-Token"
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_COOKIE = "semsynth-page"

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; font-src 'self'; worker-src 'self'; manifest-src 'self'; "
    "base-uri 'none'; form-action 'none'; object-src 'none'"
)


def host_name(host: str) -> str:
    """Return the name in a ``Host`` header, without port and brackets, in lower case."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".").lower()
    except ValueError:
        return ""


class Guard:
    """ASGI middleware that answers what must not come in, and guards what goes out.

    It also takes ``--root-path`` off the paths, whether the proxy does so itself or not.
    """

    def __init__(
        self, app: ASGIApp, config: AppConfig, token: str | None, framed: bool = False
    ) -> None:
        """Guard an application.

        Args:
            app: what answers the rest.
            config: host, names and root path.
            token: that requests must have; None: none.
            framed: whether other pages may show it in a frame, as notebooks do.
        """
        self.app, self.token = app, token
        self.root = config.root_path.rstrip("/")
        self.names = allowed_names(config)
        # A server on all interfaces is reached by any address of this machine; a name could be of
        # somebody else, an address cannot.
        self.any_address = not config.is_loopback
        ancestors = "" if framed else f"; frame-ancestors {' '.join(_frames(config))}"
        self.policy = POLICY + ancestors

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            raise RuntimeError("the studio speaks HTTP alone")
        headers = Headers(scope=scope)
        limited = _Limited(receive, send, self._finish)
        try:
            self._check_origin(headers)
            answer = self._without_root(scope)
            if answer is None:
                answer = self._check_token(scope, headers, limited)
            _check_length(headers)
        except Refused as refused:
            answer = refusal(refused)
        if answer is not None:
            await answer(scope, receive, limited.send)
            return
        try:
            await self.app(scope, limited.receive, limited.send)
        except Exception:
            if not limited.started:  # otherwise it was answered, and is in the log
                raise

    def _check_origin(self, headers: Headers) -> None:
        host = headers.get("host", "")
        if not self._is_ours(host_name(host)):
            raise Refused(
                f"refused: requests for host '{host[:100]}' are not answered; if that is its name "
                "behind a proxy, start with --allow-host NAME",
                403,
            )
        origin = headers.get("origin")
        if origin is not None and not self._same_origin(origin, host):
            raise Refused(
                f"refused: the request comes from {origin[:100]}; if that is the name of a proxy, "
                "start with --allow-host NAME",
                403,
            )
        cross = headers.get("sec-fetch-site") == "cross-site"
        if cross and headers.get("sec-fetch-mode") not in ("navigate", None):
            raise Refused("refused: the request comes from another site", 403)

    def _is_ours(self, name: str) -> bool:
        if name in self.names:
            return True
        if not self.any_address:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _same_origin(self, origin: str, host: str) -> bool:
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        if parts.scheme not in ("http", "https"):
            return False
        # A proxy has another port than the server behind it, and perhaps another name.
        behind = (parts.hostname or "") in self.names - LOOPBACK
        return behind or parts.netloc.lower() == host.lower()

    def _without_root(self, scope: MutableMapping[str, Any]) -> Response | None:
        path = scope["path"]
        if self.root and path == self.root:
            query = scope.get("query_string", b"").decode("latin-1")
            return RedirectResponse(f"{self.root}/{'?' + query if query else ''}")
        if self.root and path.startswith(f"{self.root}/"):
            scope["path"] = path[len(self.root) :]
            scope["raw_path"] = scope["path"].encode()
        scope["root_path"] = ""
        return None

    def _check_token(
        self, scope: MutableMapping[str, Any], headers: Headers, limited: _Limited
    ) -> Response | None:
        """Check the token; `/` without one is the page all the same, which then asks for it.

        The page is public code; what it was given before, it keeps over a reload.
        """
        path = scope["path"]
        limited.public = path.startswith("/static/")
        if self.token is None or limited.public:
            return None
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        given = headers.get(TOKEN_HEADER) or query.get("token", [""])[0]
        if hmac.compare_digest(given.encode(), self.token.encode()):
            if path == "/":
                limited.cookie = f"{_COOKIE}={_page_key(self.token)}; HttpOnly; SameSite=Strict"
            return None
        if path == "/":
            if not hmac.compare_digest(_cookie(headers).encode(), _page_key(self.token).encode()):
                limited.status = 401
            return None
        raise Refused("the token is missing or wrong: open the address that was printed", 401)

    def _finish(self, message: Message, limited: _Limited) -> None:
        """Add to the headers of an answer."""
        headers = MutableHeaders(raw=message["headers"])
        headers["Content-Security-Policy"] = self.policy
        headers["X-Content-Type-Options"] = "nosniff"
        headers["Referrer-Policy"] = "no-referrer"
        headers["Cross-Origin-Resource-Policy"] = "same-origin"
        # Code may be kept, if it is asked whether there is newer.
        headers.setdefault("Cache-Control", "no-cache" if limited.public else "no-store")
        if limited.cookie:
            headers["Set-Cookie"] = f"{limited.cookie}; Path={self.root}/"


class _Limited:
    """What is received and sent in one request: bodies up to a limit, headers added."""

    def __init__(
        self, receive: Receive, send: Send, finish: Callable[[Message, _Limited], None]
    ) -> None:
        self._receive, self._send, self._finish = receive, send, finish
        self.cookie = ""
        self.public = False
        self.status = 0
        self.started = False
        self._received = 0

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._received += len(message.get("body", b""))
            if self._received > MAX_UPLOAD_BYTES:  # it said less, or nothing
                raise _too_long()
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            if self.status and message["status"] == 200:
                message["status"] = self.status
            message["headers"] = list(message.get("headers", []))
            self._finish(message, self)
        await self._send(message)


def refusal(refused: Refused) -> Response:
    """Return the answer to a request that is not done."""
    return JSONResponse({"error": " ".join(str(refused).split())}, refused.http)


def _check_length(headers: Headers) -> None:
    length = headers.get("content-length", "0")
    if not length.isdigit() or int(length) > MAX_UPLOAD_BYTES:
        raise _too_long()


def _too_long() -> Refused:
    return Refused(f"the upload is too large: at most {MAX_UPLOAD_BYTES >> 20} MB", 413)


def _page_key(token: str) -> str:
    """Return what lets a reload show the page: other servers of a machine see its cookies."""
    return hmac.new(token.encode(), b"page", hashlib.sha256).hexdigest()[:32]


def _cookie(headers: Headers) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(_COOKIE)
    except CookieError:
        return ""
    return "" if found is None else found.value


def allowed_names(config: AppConfig) -> frozenset[str]:
    """Return the names by which requests may call this server."""
    names = {host_name(name) or name.lower() for name in config.allow_host}
    names |= LOOPBACK
    if not config.is_loopback:
        names |= {name.lower() for name in (socket.gethostname(), socket.getfqdn())}
    names.add(host_name(f"[{config.host}]" if ":" in config.host else config.host))
    return frozenset(names - {""})


def _frames(config: AppConfig) -> list[str]:
    """Return whose pages may show it in a frame: its own, and those of this machine."""
    own = ["'self'", *(f"http://{name}:*" for name in ("localhost", "127.0.0.1"))]
    return own + [f"https://{host_name(name)}" for name in config.allow_host]
