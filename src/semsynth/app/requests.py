"""The parts of a request, waiting for its turn, and answers to what went wrong."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from semsynth.app.queue import SamplerQueue, Turn
from semsynth.app.refused import Refused
from semsynth.app.security import refusal
from semsynth.core.errors import UserError

# How often to look whether a page still waits.
_LOOK_SECONDS = 0.25

logger = logging.getLogger(__name__)


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
        Refused: it is missing, or not a file.
    """
    part = form.get(name)
    if not isinstance(part, UploadFile):
        raise Refused(f"the part {name} is missing, or is not a file")
    return await part.read()


async def json_part(form: FormData, name: str) -> dict[str, Any]:
    """Return the JSON object of a field or file of a form.

    Raises:
        Refused: it is missing, or not a JSON object.
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
        raise Refused(f"{what}: is not JSON") from None
    if not isinstance(value, dict):
        raise Refused(f"{what}: must be a JSON object")
    return value


async def _user_error(request: Request, error: Exception) -> Response:
    refused = error if isinstance(error, Refused) else Refused(str(error))
    return refusal(refused)


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    detail = error.detail if isinstance(error, HTTPException) else str(error)
    return refusal(Refused(f"{request.url.path[:100]}: {detail}", status))


async def _bug(request: Request, error: Exception) -> Response:
    logger.error("a request failed", exc_info=error)
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return refusal(Refused(f"the studio failed: {text[:300]}", 500))


# Without the one for bugs, Starlette would answer them with a page of its own.
HANDLERS: dict[Any, Any] = {UserError: _user_error, HTTPException: _http_error, Exception: _bug}
