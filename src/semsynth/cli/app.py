"""`semsynth app`: the studio in the browser."""

from __future__ import annotations

import json
from typing import Any

from semsynth.app.config import AppConfig
from semsynth.app.launch import check_installed, serve
from semsynth.cli.common import parse


def main(argv: list[str]) -> int:
    """Run the verb with its flags until Ctrl-C, and return the exit status."""
    config, as_json = parse(AppConfig, argv, "app")
    check_installed()

    def announce(place: dict[str, Any]) -> None:
        if as_json:
            print(json.dumps(place), flush=True)
            return
        print(f"studio: {place['url']}", flush=True)
        if config.root_path:
            token = "" if place["token"] is None else f"?token={place['token']}"
            print(f"behind the proxy: {config.root_path.rstrip('/')}/{token}", flush=True)
        print("Ctrl-C ends it.", flush=True)

    try:
        serve(config, announce)
    except KeyboardInterrupt:
        print("the studio is closed")
    return 0
