"""The HTTP side of the studio: routes, answers, and errors in one line."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from semsynth.app.queue import Turn
from semsynth.app.refused import Refused
from semsynth.app.render import Canvas, Order, Rendering, prepare
from semsynth.app.requests import HANDLERS, answer_of, file_part, json_body, json_part
from semsynth.app.results import Result, Upload
from semsynth.app.routes import routes as more_routes
from semsynth.app.security import ASGIApp, Guard
from semsynth.app.studio import Studio
from semsynth.app.uploads import read_instances, read_mask, read_photo, read_region
from semsynth.core.config import Config, parse
from semsynth.data.image_files.channels import encode_image

STATIC = Path(__file__).parent / "static"


class LaneName(Config):
    """A lane of a page."""

    client: str
    lane: str


def build(studio: Studio, framed: bool = False) -> ASGIApp:
    """Return the application of a studio, guarded.

    Args:
        studio: what it serves.
        framed: see ``Guard``.
    """
    app = Starlette(routes=routes(studio), exception_handlers=HANDLERS)
    return Guard(app, studio.config, studio.token, framed)


def routes(studio: Studio) -> list[Any]:
    """Open what the configuration names beside models, and return all routes of a studio.

    Raises:
        UserError: data, segmenter or folder of pairs that cannot be used.
    """
    own = _Endpoints(studio)
    return [
        Route("/", own.page),
        Route("/api/state", own.state),
        Route("/api/example", own.example),
        Route("/api/generate", own.generate, methods=["POST"]),
        Route("/api/queue", own.lanes),
        Route("/api/cancel", own.cancel, methods=["POST"]),
        Route("/api/upload", own.upload, methods=["POST"]),
        Route("/api/uploads/{id}/image", own.uploaded),
        *more_routes(studio),
        Mount("/static", StaticFiles(directory=STATIC, check_dir=False)),
    ]


class _Endpoints:
    """The endpoints that make images."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    async def page(self, request: Request) -> Response:
        """Answer `GET /`: the page, which is code alone."""
        return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-store"})

    async def state(self, request: Request) -> Response:
        """Answer `GET /api/state`: what is open."""
        return JSONResponse(await asyncio.to_thread(self.studio.state))

    async def example(self, request: Request) -> Response:
        """Answer `GET /api/example`: a mask to begin with, as a PNG of ids."""
        model = self.studio.model(request.query_params.get("model"))
        if model.example is None:
            raise Refused(f"no example for {model.name}: its labels are its own", 404)
        return Response(encode_image(model.example, "png"), media_type="image/png")

    async def generate(self, request: Request) -> Response:
        """Answer `POST /api/generate`: the image of a mask, as a PNG."""
        async with request.form(max_files=4, max_fields=4) as form:
            order = parse(Order, await json_part(form, "request"), "request")
            mask = await file_part(form, "mask")
            region = await file_part(form, "region") if order.keep else None
            numbers = await file_part(form, "instances") if "instances" in form else None
        rendering = await asyncio.to_thread(self._prepare, order, mask, region, numbers)

        def work(turn: Turn) -> Result:
            return self.studio.keep(rendering.run(turn))

        live = order.quality == "live"
        turn = self.studio.submit(work, order.client, order.lane, order.number, live)
        result: Result = await answer_of(turn, self.studio.queue, request)
        headers = {
            "X-Semsynth-Result": result.id,
            "X-Semsynth-Seconds": f"{result.seconds:.3f}",
            "X-Semsynth-Note": quote(result.note),
        }
        return Response(result.png, media_type="image/png", headers=headers)

    def _prepare(
        self, order: Order, mask: bytes, region: bytes | None, numbers: bytes | None
    ) -> Rendering:
        model = self.studio.model(order.model)
        canvas = Canvas(
            read_mask(mask),
            None if region is None else read_region(region),
            None if numbers is None else read_instances(numbers),
            self.studio.placed(order.objects, model),
        )
        return prepare(model, order, canvas, self.studio.source(order.source, model))

    async def lanes(self, request: Request) -> Response:
        """Answer `GET /api/queue`: the lanes of a page, with position and step."""
        client = request.query_params.get("client", "")
        return JSONResponse({"lanes": self.studio.queue.lanes(client)})

    async def cancel(self, request: Request) -> Response:
        """Answer `POST /api/cancel`: end what a lane waits for."""
        place = parse(LaneName, await json_body(request), "cancel")
        return JSONResponse({"cancelled": self.studio.queue.cancel(place.client, place.lane)})

    async def upload(self, request: Request) -> Response:
        """Answer `POST /api/upload`: keep an image of the user's, to start from."""
        async with request.form(max_files=1, max_fields=1) as form:
            data = await file_part(form, "file")
        upload = await asyncio.to_thread(_read_upload, data)
        self.studio.results.add(upload)
        return JSONResponse({"id": upload.id, "size": list(upload.image_HWC.shape[:2])})

    async def uploaded(self, request: Request) -> Response:
        """Answer `GET /api/uploads/{id}/image`: an uploaded image as PNG."""
        entry = self.studio.results.find(request.path_params["id"])
        if not isinstance(entry, Upload):
            raise Refused("this image is no longer kept: upload it again", 404)
        return Response(entry.png, media_type="image/png")


def _read_upload(data: bytes) -> Upload:
    image = read_photo(data)
    return Upload(image, encode_image(image, "png"))
