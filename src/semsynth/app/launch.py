"""Start the studio: from the command line, or inside of a notebook."""

from __future__ import annotations

import errno
import html
import os
import socket
import sys
import threading
import webbrowser
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlencode

from semsynth.app.config import AppConfig
from semsynth.core.errors import UserError
from semsynth.core.logging import logger

if TYPE_CHECKING:
    from semsynth.app.studio import Studio

# Ports to try after the one that was asked for.
_MORE_PORTS = 50
# Of the extra `app`: package to install, module to import.
_NEEDED = {"starlette": "starlette", "uvicorn": "uvicorn", "python-multipart": "python_multipart"}


def check_installed() -> None:
    """Check that the packages of the extra ``app`` are there.

    Raises:
        UserError: they are not; says how to install them.
    """
    missing = [name for name, module in _NEEDED.items() if find_spec(module) is None]
    if missing:
        raise UserError(f"the studio needs {', '.join(missing)}: pip install 'semsynth[app]'")


class RunningApp:
    """A studio that runs in the background; in a notebook it shows itself.

    Attributes:
        url: its address, with the token.
    """

    def __init__(self, config: AppConfig, height: int = 900) -> None:
        """Open the models and listen, in a thread; returns when it answers.

        Args:
            config: the flags of `semsynth app`.
            height: of its frame in a notebook, in pixels.

        Raises:
            UserError: the packages are not installed, a model cannot be loaded, or the interface
                does not exist.
        """
        check_installed()
        self._height = height
        self._sockets = _listen(config)
        try:
            self._studio, self._server = _make(config, framed=True)
        except BaseException:
            _close(self._sockets)
            raise
        self.url = address(config, self._sockets[0], self._studio.token)
        self._thread = threading.Thread(
            target=self._server.run, args=(self._sockets,), name="semsynth app", daemon=True
        )
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            self._thread.join(0.02)

    def close(self) -> None:
        """End the server and free the port and the models."""
        self._server.should_exit = True
        self._thread.join(10)
        self._studio.close()
        self._studio.models.clear()
        _close(self._sockets)

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *details: object) -> None:
        """Close it."""
        self.close()

    def _repr_html_(self) -> str:
        return (
            f'<iframe src="{html.escape(self._frame_url())}" width="100%" '
            f'height="{self._height}" style="border: 0" allow="clipboard-write"></iframe>'
        )

    def _frame_url(self) -> str:
        """Return what a notebook's frame shows: below the notebook's own server with a root path.

        There the browser may be on another machine, which sees nothing but the proxy.
        """
        root = self._studio.config.root_path.rstrip("/")
        return f"{root}/{self.url.rpartition('/')[2]}" if root else self.url

    def __repr__(self) -> str:
        """Return what it is, with its address."""
        return f"<semsynth studio at {self.url}>"


def launch_app(
    model: str | Path | Sequence[str | Path] = (),
    data: str | Path | None = None,
    segmenter: str | Path | None = None,
    save_to: str | Path = "./studio",
    **flags: Any,
) -> RunningApp:
    """Open the studio in the background; as the last line of a notebook's cell it shows itself.

    Args:
        model: a trained generator or several: paths, or names of models of the package, all of
            which are the default.
        data: prepared data set or samples to browse.
        segmenter: the evaluator, which scores images.
        save_to: folder of the pairs that are saved.
        flags: others of `semsynth app`: host, port, root_path, allow_host, token, device; and
            ``height`` of the frame in pixels, 900 by default.

    Returns:
        The running studio: ``.url``, ``.close()``.

    Raises:
        UserError: see ``RunningApp``; or a flag that there is not.
    """
    height = flags.pop("height", 900)
    names = ("host", "port", "root_path", "allow_host", "token", "device")
    for name in flags:
        if name not in names:
            raise UserError(f"launch_app: no argument '{name}'; there are {', '.join(names)}")
    models = (model,) if isinstance(model, str | os.PathLike) else tuple(model)
    if "allow_host" in flags:
        hosts = flags["allow_host"]
        flags["allow_host"] = (hosts,) if isinstance(hosts, str) else tuple(hosts)
    config = AppConfig(
        model=tuple(str(each) for each in models),
        data=None if data is None else Path(data),
        segmenter=None if segmenter is None else Path(segmenter),
        save_to=Path(save_to),
        browser=False,
        **flags,
    )
    return RunningApp(config, height)


def serve(config: AppConfig, announce: Any) -> None:
    """Open the models, listen and answer until Ctrl-C.

    Args:
        config: the flags.
        announce: called with the address, host, port and token, once, before it answers.

    Raises:
        UserError: as for ``RunningApp``.
    """
    check_installed()
    sockets = _listen(config)
    try:
        studio, server = _make(config, framed=False)
        host, port = sockets[0].getsockname()[:2]
        url = address(config, sockets[0], studio.token)
        announce({"url": url, "host": host, "port": port, "token": studio.token})
        if config.browser and has_display():
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
        try:
            server.run(sockets)
        finally:
            studio.close()
    finally:
        _close(sockets)


def check_inputs(config: AppConfig) -> None:
    """Check what a configuration names, before anything is loaded.

    Raises:
        UserError: a model or data that there are not, or a folder of something else.
    """
    from semsynth.app.save import check_save_to
    from semsynth.data.dataset import PreparedDataset
    from semsynth.pipelines.formats.pretrained import find_model

    for name in config.model:
        path = find_model(name)
        if not path.exists():
            raise UserError(f"{path}: no such model; train one with 'semsynth train'")
    if config.data is not None:
        PreparedDataset.open(config.data)
    check_save_to(config.save_to)


def _make(config: AppConfig, framed: bool) -> tuple[Studio, Any]:
    check_inputs(config)
    logger.info("loading the models")
    import uvicorn

    from semsynth.app.server import build
    from semsynth.app.studio import Studio

    studio = Studio(config)
    try:
        app = build(studio, framed)
    except BaseException:
        studio.close()
        raise
    studio.warm()
    settings = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,  # addresses have the token
        lifespan="off",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    return studio, uvicorn.Server(settings)


def _listen(config: AppConfig) -> list[socket.socket]:
    """Listen at the port of a configuration, or at the next free one.

    Raises:
        UserError: there is no such interface, no permission, or no free port.
    """
    host = config.host.strip("[]")
    try:
        family, *_, place = socket.getaddrinfo(
            host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise UserError(f"--host {config.host}: {error.strerror or error}") from None
    last = config.port + _MORE_PORTS if config.port else 0
    for port in range(config.port, min(last, 65535) + 1):
        listening = socket.socket(family, socket.SOCK_STREAM)
        if os.name != "nt":  # there it would let two servers share a port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((place[0], port, *place[2:]))
            listening.listen(128)
        except OSError as error:
            listening.close()
            if error.errno == errno.EADDRINUSE:
                continue
            raise UserError(
                f"--host {config.host} --port {port}: {error.strerror or error}"
            ) from None
        if port != config.port:
            logger.info(f"port {config.port} is in use: {port} is taken")
        listening.set_inheritable(False)
        return [listening]
    raise UserError(f"--port {config.port}: it and the {_MORE_PORTS} after it are in use")


def _close(sockets: Sequence[socket.socket]) -> None:
    for each in sockets:
        each.close()


def address(config: AppConfig, listening: socket.socket, token: str | None) -> str:
    """Return the address to open: with the token, and the name of this machine for others."""
    host, port = listening.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = socket.getfqdn()
    elif ":" in host:
        host = f"[{host}]"
    query = f"?{urlencode({'token': token})}" if token else ""
    return f"http://{host}:{port}/{query}"


def has_display() -> bool:
    """Whether a browser that opens here is seen by who started it."""
    if os.name == "nt" or sys.platform == "darwin":
        return "SSH_CONNECTION" not in os.environ
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
