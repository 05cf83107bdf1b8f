"""The parts of a request, and waiting for its turn."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request

from semsynth.app.queue import SamplerQueue, Turn
from semsynth.app.refused import Refused

# How often to look whether a page still waits.
_LOOK_SECONDS = 0.25


async def answer_of(turn: Turn, queue: SamplerQueue, request: Request) -> Any:
    """Wait for a turn; cancel it where the page that asked has gone.

    Raises:
        Refused: it was cancelled; or what its work raised.
    """
    waiting = asyncio.wrap_future(turn.done)
    while True:
        done, _ = await asyncio.wait([waiting], timeout=_LOOK_SECONDS)
        if done:
            return waiting.result()
        if await request.is_disconnected():
            queue.drop(turn)


async def file_part(form: FormData, name: str) -> bytes:
    """Return the bytes of a file of a form.

    Raises:
        Refused: it is missing, or no file.
    """
    part = form.get(name)
    if not isinstance(part, UploadFile):
        raise Refused(f"the part {name} is missing, or is not a file")
    return await part.read()


async def json_part(form: FormData, name: str) -> dict[str, Any]:
    """Return the JSON object of a field or file of a form.

    Raises:
        Refused: it is missing or no JSON object.
    """
    part = form.get(name)
    if part is None:
        raise Refused(f"the part {name} is missing")
    return _json(await part.read() if isinstance(part, UploadFile) else part, name)


async def json_body(request: Request) -> dict[str, Any]:
    """Return the JSON object that is the body of a request; Refused where it is none."""
    return _json(await request.body(), "the request")


def _json(text: bytes | str, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise Refused(f"{what}: is no JSON") from None
    if not isinstance(value, dict):
        raise Refused(f"{what}: must be a JSON object")
    return value
