"""Who may ask: token, Host, Origin, sizes of bodies; what the answers forbid; proxies."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("starlette", reason="needs semsynth[app]")

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from semsynth.app.config import MAX_UPLOAD_BYTES, AppConfig
from semsynth.app.requests import HANDLERS
from semsynth.app.security import Guard
from semsynth.core.errors import UserError

TOKEN = "the-token"


async def echo(request: Request) -> Response:
    return PlainTextResponse(f"{request.url.path} {len(await request.body())}")


async def bug(request: Request) -> Response:
    raise ZeroDivisionError("a bug\nof two lines")


def client(token: str | None = TOKEN, base: str = "http://127.0.0.1:7860", **flags: Any) -> Any:
    routes = [
        Route("/", echo),
        Route("/static/x.js", echo),
        Route("/api/state", echo, methods=["GET", "POST"]),
        Route("/api/bug", bug),
    ]
    app = Starlette(routes=routes, exception_handlers=HANDLERS)
    config = AppConfig(**flags)
    return TestClient(Guard(app, config, token), base_url=base, follow_redirects=False)


def test_everything_but_public_code_needs_the_token() -> None:
    page = client()
    for headers in ({}, {"X-Semsynth-Token": "wrong"}, {"X-Semsynth-Token": "é"}):
        given = {name: value.encode() for name, value in headers.items()}
        answer = page.get("/api/state", headers=given)
        assert answer.status_code == 401
        assert "open the address that was printed" in answer.json()["error"]
    assert page.get("/api/state?token=wrong").status_code == 401
    assert page.get("/nothing").status_code == 401  # not even which paths there are
    assert page.get("/static/x.js").status_code == 200
    assert page.get("/api/state", headers={"X-Semsynth-Token": TOKEN}).status_code == 200
    assert page.get(f"/api/state?token={TOKEN}").status_code == 200
    assert client(None).get("/api/state").status_code == 200


def test_the_page_survives_a_reload_and_its_cookie_is_no_token() -> None:
    page = client()
    assert page.get("/").status_code == 401
    assert page.get(f"/?token={TOKEN}").status_code == 200
    cookie = page.cookies["semsynth-page"]
    assert page.get("/").status_code == 200
    assert page.get("/api/state").status_code == 401
    assert page.get(f"/api/state?token={cookie}").status_code == 401
    assert client("another").get("/", headers={"Cookie": f"semsynth-page={cookie}"}).is_error


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "10.0.0.1", "", "[::1"]
)
def test_a_foreign_host_is_refused(host: str) -> None:
    answer = client().get(f"/api/state?token={TOKEN}", headers={"Host": host})
    assert answer.status_code == 403
    assert "--allow-host" in answer.json()["error"]


@pytest.mark.parametrize("host", ["localhost:7860", "127.0.0.1:9999", "[::1]:7860", "LOCALHOST"])
def test_this_machine_by_any_port_is_not_foreign(host: str) -> None:
    answer = client().get(f"/api/state?token={TOKEN}", headers={"Host": host})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "http://localhost:3000", "null", "file://", "http://[", ""]
)
def test_a_foreign_origin_is_refused_even_with_the_token(origin: str) -> None:
    headers = {"Host": "localhost:7860", "Origin": origin}
    for send in (client().get, client().post):
        assert send(f"/api/state?token={TOKEN}", headers=headers).status_code == 403


def test_the_own_origin_and_a_proxys_are_not_foreign() -> None:
    url = f"/api/state?token={TOKEN}"
    own = {"Host": "localhost:7860", "Origin": "http://localhost:7860"}
    assert client().get(url, headers=own).status_code == 200
    hub = {"Host": "hub.example.org", "Origin": "https://hub.example.org"}
    assert client().get(url, headers=hub).status_code == 403
    behind = client(allow_host=("Hub.example.org",))
    assert behind.get(url, headers=hub).status_code == 200
    # A proxy that changes Host.
    assert behind.get(url, headers={**hub, "Host": "127.0.0.1:7860"}).status_code == 200
    other = {**hub, "Origin": "https://evil.example"}
    assert behind.get(url, headers=other).status_code == 403


def test_another_site_cannot_even_embed_an_answer() -> None:
    url = f"/api/state?token={TOKEN}"
    fetch = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    assert client().get(url, headers=fetch).status_code == 403
    click = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert client().get(f"/?token={TOKEN}", headers=click).status_code == 200


def test_on_all_interfaces_addresses_are_good_and_names_are_not() -> None:
    page = client(host="0.0.0.0")
    for host, status in (("192.168.1.7:7860", 200), ("evil.example", 403)):
        answer = page.get(f"/api/state?token={TOKEN}", headers={"Host": host})
        assert answer.status_code == status


def test_another_interface_is_never_without_a_token() -> None:
    for host in ("0.0.0.0", "192.168.1.7", "::", "node7.cluster"):
        with pytest.raises(UserError, match="--no-token"):
            AppConfig(host=host, token=False)
    for host in ("127.0.0.1", "127.0.0.2", "::1", "localhost"):
        assert not AppConfig(host=host, token=False).token


def test_too_much_is_refused_before_and_while_it_is_read() -> None:
    url, large = f"/api/state?token={TOKEN}", b"x" * (MAX_UPLOAD_BYTES + 1)
    assert client().post(url, content=large[1:]).text.endswith(str(MAX_UPLOAD_BYTES))
    answer = client().post(url, content=large)
    assert answer.status_code == 413 and "20 MB" in answer.json()["error"]
    parts = (large[index : index + (1 << 20)] for index in range(0, len(large), 1 << 20))
    answer = client().post(url, content=parts)  # chunks, without a length
    assert answer.status_code == 413
    lie = {"Content-Length": "-1"}
    assert client().post(url, content=b"", headers=lie).status_code == 413


def test_answers_forbid_what_is_foreign() -> None:
    for path in ("/", "/static/x.js", "/api/state"):
        headers = client().get(path).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert "http://" not in policy.partition("frame-ancestors")[0]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize("strips", [True, False], ids=["strips", "keeps"])
def test_behind_a_path_of_a_proxy(strips: bool) -> None:
    root = "/user/me/proxy/7860"
    page = client(root_path=root)
    below = "" if strips else root
    answer = page.get(f"{below}/api/state?token={TOKEN}")
    assert answer.status_code == 200 and answer.text.startswith("/api/state")
    assert page.get(f"{below}/api/state").status_code == 401
    assert page.get(f"{below}/?token={TOKEN}").headers["set-cookie"].endswith(f"Path={root}/")
    moved = page.get(f"{root}?token={TOKEN}")
    assert moved.headers["location"] == f"{root}/?token={TOKEN}"


def test_a_bug_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    answer = client().get(f"/api/bug?token={TOKEN}")
    assert answer.status_code == 500
    assert answer.json() == {"error": "the studio failed: ZeroDivisionError: a bug of two lines"}
    assert "a request failed" in caplog.text


@pytest.mark.parametrize(
    "flags",
    [
        {"port": 70000},
        {"host": " "},
        {"root_path": "proxy"},
        {"root_path": "//evil.example"},
        {"allow_host": ("https://hub",)},
        {"allow_host": ("*",)},
    ],
    ids=str,
)
def test_flags_are_checked(flags: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="--"):
        AppConfig(**flags)
