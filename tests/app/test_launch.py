"""Listening: the next port, addresses, what is missing, how arguments become flags."""

from __future__ import annotations

import socket
import sys
from typing import Any

import pytest

from semsynth.app import launch
from semsynth.app.config import AppConfig
from semsynth.app.launch import address, has_display, launch_app
from semsynth.cli import main
from semsynth.core.errors import UserError


def port_of(sockets: list[socket.socket]) -> int:
    return int(sockets[0].getsockname()[1])


def test_a_port_in_use_gives_the_next_one_and_says_so(logged: Any) -> None:
    first = launch._listen(AppConfig(port=0))
    taken = port_of(first)
    try:
        second = launch._listen(AppConfig(port=taken))
        assert taken < port_of(second) <= taken + 50
        assert f"port {taken} is in use: {port_of(second)} is taken" in logged()
        launch._close(second)
    finally:
        launch._close(first)
    again = launch._listen(AppConfig(port=taken))  # it is free at once
    assert port_of(again) == taken
    launch._close(again)


def test_the_last_port_of_all_in_use_is_one_line() -> None:
    try:
        last = launch._listen(AppConfig(port=65535))
    except UserError:
        pytest.skip("somebody else has the port 65535")
    try:
        with pytest.raises(UserError, match="in use"):
            launch._listen(AppConfig(port=65535))
    finally:
        launch._close(last)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "203.0.113.7"])
def test_an_interface_that_is_not_here_is_one_line(host: str) -> None:
    with pytest.raises(UserError, match=f"--host {host}"):
        launch._listen(AppConfig(host=host, port=0))


def test_addresses_have_the_token_and_a_name_that_others_can_open() -> None:
    sockets = launch._listen(AppConfig(port=0))
    port = port_of(sockets)
    assert address(AppConfig(), sockets[0], "a b") == f"http://127.0.0.1:{port}/?token=a+b"
    assert address(AppConfig(), sockets[0], None) == f"http://127.0.0.1:{port}/"
    launch._close(sockets)
    everywhere = AppConfig(host="0.0.0.0", port=0)
    sockets = launch._listen(everywhere)
    shown = address(everywhere, sockets[0], None)
    assert shown == f"http://{socket.getfqdn()}:{port_of(sockets)}/"
    launch._close(sockets)


def test_without_a_display_no_browser_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert not has_display()
    monkeypatch.setenv("DISPLAY", ":0")
    assert has_display()


def test_the_missing_extra_is_one_line_with_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launch, "find_spec", lambda name: None)
    assert main(["app", "--no-browser"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "pip install 'semsynth[app]'" in error
    with pytest.raises(UserError, match="pip install"):
        launch_app()


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--model", "no-such-thing: no such file or folder, and no model of the package"),
        ("--data", "no-such-thing: no such folder"),
    ],
)
def test_what_is_not_there_is_said_before_anything_is_loaded(
    flag: str, says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "check_installed", lambda: None)
    assert main(["app", "--no-browser", "--port", "0", flag, "no-such-thing"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {says}") and captured.err.count("\n") == 1
    assert captured.out == ""


def test_wrong_flags_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["app", "--host", "0.0.0.0", "--no-token"]) == 2
    assert "omit one of them" in capsys.readouterr().err
    with pytest.raises(UserError, match="no argument 'prot'"):
        launch_app(prot=1)


def test_arguments_of_a_notebook_are_the_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(launch, "RunningApp", lambda config, height: given.append((config, height)))
    launch_app("nuclei", port=0, allow_host="hub.example.org", height=500)
    launch_app(["a", "b"], data="d", token=False)
    one, two = given
    assert one[0].model == ("nuclei",) and one[1] == 500
    assert one[0].allow_host == ("hub.example.org",) and not one[0].browser
    assert two[0].model == ("a", "b") and str(two[0].data) == "d" and not two[0].token
