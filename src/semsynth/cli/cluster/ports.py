"""A TCP port that another process will listen on, kept free until then."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def reserve_port(wanted: Sequence[int] = (0,), host: str = "") -> Iterator[int]:
    """Hold a free port of this machine without listening on it.

    Only a socket that sets SO_REUSEADDR, as servers do (torch's store among them), can be bound to
    it meanwhile; the system gives it to no connection, and a second call here does not get it.

    Args:
        wanted: ports to try in their order; 0 is one that the system chooses.
        host: the address; by default all of this machine's.

    Yields:
        The first of them that is free.

    Raises:
        OSError: none is.
    """
    with socket.socket() as held:
        for port in wanted:
            try:
                held.bind((host, port))
                break
            except OSError:
                if port == wanted[-1]:
                    raise
        # Not before: two sockets that both allow it could be bound to the same port.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        yield held.getsockname()[1]
