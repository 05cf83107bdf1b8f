"""A port that is kept free until a server listens on it."""

from __future__ import annotations

import socket
from datetime import timedelta

import pytest
from torch.distributed import TCPStore

from semsynth.cli.cluster.ports import reserve_port


def test_only_a_server_gets_it_and_torch_is_one() -> None:
    with reserve_port() as port:
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("", port))
        minute = timedelta(seconds=60)
        server = TCPStore("127.0.0.1", port, is_master=True, timeout=minute)
        client = TCPStore("127.0.0.1", port, is_master=False, timeout=minute)
        server.set("key", "value")
        assert client.get("key") == b"value"


def test_the_next_one_is_tried_and_the_last_failure_told() -> None:
    with reserve_port() as first:
        with reserve_port([first, 0]) as second:
            assert second not in (first, 0)
        with pytest.raises(OSError, match="in use"), reserve_port([first]):
            pass
