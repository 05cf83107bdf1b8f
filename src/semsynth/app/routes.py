"""The endpoints of what is browsed, scored, compared, saved and taken out."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from semsynth.app.code import python_lines
from semsynth.app.models import StudioModel
from semsynth.app.objects import Shelf
from semsynth.app.opened import Opened
from semsynth.app.outputs import KINDS, image_file, session_zip
from semsynth.app.refused import Refused
from semsynth.app.render import fit_mask
from semsynth.app.requests import answer_of, file_part, json_body, json_part
from semsynth.app.results import Result
from semsynth.app.save import Pair
from semsynth.app.uploads import read_mask
from semsynth.core.config import Config, parse
from semsynth.core.errors import abbreviate
from semsynth.data.image_files.channels import as_rgb, encode_image
from semsynth.data.labels import Array
from semsynth.pipelines.formats.model_file import joint_licence

if TYPE_CHECKING:
    from semsynth.app.studio import Studio

Json = dict[str, Any]
HELD_OUT = ("val", "test")
_LIMIT = 50


class OfResult(Config):
    """A request about a result.

    Attributes:
        result: its id.
        model: that is open in the page; it is the result's that counts.
    """

    result: str = Field(max_length=64)
    model: str | None = None


class SaveOrder(OfResult):
    """A pair that is to be saved.

    Attributes:
        split: that it goes to.
        mask_source: id of the item that the mask was begun from; None: it was drawn.
    """

    split: str = "train"
    mask_source: str | None = None


class ZipOrder(Config):
    """The results of a session."""

    results: list[str]


def routes(studio: Studio) -> list[Route]:
    """Open what the configuration names, and return the routes to it.

    Raises:
        UserError: see ``Opened``.
    """
    opened = Opened(studio)
    studio.read_item = opened.read_item
    studio.read_object = opened.read_object
    studio.facts.append(opened.facts)
    studio.closing.append(opened.close)
    own = _Endpoints(opened)
    return [
        Route("/api/data", own.data),
        Route("/api/data/{id}/{kind}", own.item),
        Route("/api/objects", own.objects),
        Route("/api/objects/{id}/{kind}", own.object),
        Route("/api/evaluate", own.evaluate, methods=["POST"]),
        Route("/api/nearest", own.nearest, methods=["POST"]),
        Route("/api/save", own.save, methods=["POST"]),
        Route("/api/python", own.python, methods=["POST"]),
        Route("/api/session.zip", own.zip, methods=["POST"]),
        Route("/api/results/{id}/{kind}", own.result),
    ]


class _Endpoints:
    """The endpoints: what takes time is done in threads."""

    def __init__(self, opened: Opened) -> None:
        self.opened, self.studio = opened, opened.studio

    async def data(self, request: Request) -> Response:
        """Answer `GET /api/data`: a page of the images."""
        query = request.query_params

        def work() -> Json:
            model = self.studio.model(query.get("model") or None)
            span, class_id = _span(request), _number(request, "class")
            view = self.opened.view(model)
            page = self.opened.data.page(view, query.get("split") or None, class_id, span)
            return {**page, **self.opened.of_model(model)}

        return JSONResponse(await asyncio.to_thread(work))

    async def item(self, request: Request) -> Response:
        """Answer `GET /api/data/{id}/{image|mask|instances|thumbnail}`: a PNG."""
        kind = request.path_params["kind"]

        def work() -> bytes:
            library = self.opened.data
            item = library.find(request.path_params["id"])
            if kind == "thumbnail":
                return library.thumbnail(item)
            if kind == "image":
                return encode_image(library.image(item), "png")
            if kind == "mask":
                model = self.studio.model(request.query_params.get("model") or None)
                return encode_image(library.mask(item, self.opened.view(model)), "png")
            if kind == "instances":
                return encode_image(library.instances(item), "png")
            raise Refused(f"an image has image, mask and thumbnail, not '{kind[:20]}'", 404)

        return await _png(work)

    async def objects(self, request: Request) -> Response:
        """Answer `GET /api/objects`: a page of the shelf."""

        def work() -> Json:
            model = self.studio.model(request.query_params.get("model") or None)
            span, class_id = _span(request), _number(request, "class")
            return self._shelf.page(self.opened.view(model), class_id, span)

        return JSONResponse(await asyncio.to_thread(work))

    @property
    def _shelf(self) -> Shelf:
        shelf = self.opened.shelf
        if shelf is None:
            raise Refused("no data are open: start with semsynth app --data PREPARED", 404)
        return shelf

    async def object(self, request: Request) -> Response:
        """Answer `GET /api/objects/{id}/{picture|mask}`: a PNG of the object's box."""
        kind = request.path_params["kind"]

        def work() -> bytes:
            one = self._shelf.find(request.path_params["id"])
            if kind == "picture":
                return self._shelf.shown(one)
            if kind == "mask":
                return self._shelf.region(one)
            raise Refused(f"'{kind[:20]}' is nothing of an object", 404)

        return await _png(work)

    async def evaluate(self, request: Request) -> Response:
        """Answer `POST /api/evaluate`: what the segmenter sees, and scores."""
        async with request.form(max_files=1, max_fields=2) as form:
            order = parse(OfResult, await json_part(form, "request"), "request")
            mask = await file_part(form, "mask") if "mask" in form else None

        def work() -> Json:
            evaluator = self.opened.evaluator
            if evaluator is None:
                raise Refused(str(self.opened.facts()["why_no_evaluator"]))
            result, model = self._result(order.result)
            ids = result.mask_HW if mask is None else fit_mask(model, read_mask(mask), [])
            return evaluator.score(_rgb(result, model), ids, model.mask_labels)

        # It computes as sampling does: in its turn, and never cancelled by another page's.
        turn = self.studio.submit(lambda turn: work(), secrets.token_hex(8), "evaluate")
        return JSONResponse(await answer_of(turn, self.studio.queue, request))

    async def nearest(self, request: Request) -> Response:
        """Answer `POST /api/nearest`: the nearest training image, and whether it is a copy."""
        order = parse(OfResult, await json_body(request), "request")

        def work() -> Json:
            if self.opened.copies is None:
                raise Refused(self.opened.why_no_copies)
            result, model = self._result(order.result)
            started = ""
            if result.real is not None or result.pasted is not None:
                items = self.opened.images_of(result)
                names = [f"{x.split}/{x.stem}" for x in items]
                started = abbreviate(names, 3) if names else "another image"
            view, facts = self.opened.view(model), model.synthesizer.metadata
            about = (result.mask_HW, view, facts, started)
            return self.opened.copies.nearest(_rgb(result, model), *about)

        return JSONResponse(await asyncio.to_thread(work))

    async def save(self, request: Request) -> Response:
        """Answer `POST /api/save`: write a pair into the folder of pairs."""
        async with request.form(max_files=1, max_fields=2) as form:
            order = parse(SaveOrder, await json_part(form, "request"), "request")
            mask = await file_part(form, "mask") if "mask" in form else None
        return JSONResponse(await asyncio.to_thread(self._save, order, mask))

    def _save(self, order: SaveOrder, mask: bytes | None) -> Json:
        result, model = self._result(order.result)
        if mask is not None:
            _check_same(fit_mask(model, read_mask(mask), []), result)
        begun = self.opened.mask_of(result, order.mask_source)
        origin = [begun] if begun is not None else []
        origin += self.opened.images_of(result)
        held = next((x for x in origin if x.split in HELD_OUT and x.split != order.split), None)
        if held is not None:
            raise Refused(
                f"it was begun from {held.split}/{held.stem}, which is held out: save it into "
                f"'{held.split}', or a segmenter that is trained on it is scored on what it knows"
            )
        licences = [model.synthesizer.licence]
        licences += [self.opened.data.data.info.licence] if origin else []
        about = self.opened.made(result, begun)
        form, licence = model.synthesizer.pixels, joint_licence(*licences)
        whole = not (result.mask_HW == model.unlabelled).any()
        labels = model.labels if whole else model.mask_labels
        objects = model.objects(result.mask_HW, result.instances_HW)
        pair = Pair(result.image_HWC, result.mask_HW, labels, form, about, licence, objects)
        saved, folder = self.opened.saved.save(pair, order.split), self.opened.saved.folder
        other = saved.folder != folder
        note = f"{folder} has pairs of another size, labels or kind" if other else ""
        note = note if saved.is_new else "it was saved before"
        return {"folder": str(saved.folder), "stem": saved.stem, "split": order.split, "note": note}

    async def python(self, request: Request) -> Response:
        """Answer `POST /api/python`: lines that make an image again."""
        order = parse(OfResult, await json_body(request), "request")

        def work() -> str:
            return python_lines(*self._result(order.result))

        return PlainTextResponse(await asyncio.to_thread(work))

    async def zip(self, request: Request) -> Response:
        """Answer `POST /api/session.zip`: the images of a session, as they are packed."""
        order = parse(ZipOrder, await json_body(request), "request")

        def made_of(result: Result) -> Json:
            return self.opened.made(result, self.opened.mask_of(result))

        pieces = session_zip(order.results, self.studio.results, self.studio.models, made_of)
        headers = _attachment("semsynth_session.zip")
        return StreamingResponse(pieces, media_type="application/zip", headers=headers)

    async def result(self, request: Request) -> Response:
        """Answer `GET /api/results/{id}/{image|mask|color}`: a PNG."""
        kind = request.path_params["kind"]
        if kind not in KINDS:
            raise Refused(f"a result has {', '.join(KINDS)}, not '{kind[:20]}'", 404)
        result, model = self._result(request.path_params["id"])
        headers = _attachment(f"{result.id}_{kind}.png")
        return await _png(lambda: image_file(result, model, kind), headers)

    def _result(self, name: str) -> tuple[Result, StudioModel]:
        result = self.studio.results.get(name)
        return result, self.studio.model(result.model)


def _rgb(result: Result, model: StudioModel) -> Any:
    """Return what is shown of an image: (H, W, 3) uint8."""
    form = model.synthesizer.pixels
    return result.image_HWC if form.is_rgb else as_rgb(result.image_HWC, form.bits)


def _check_same(ids: Array, result: Result) -> None:
    """Refuse to save an image with a mask that it was not made of."""
    if not np.array_equal(ids, result.mask_HW):
        share = 100 * float((ids != result.mask_HW).mean())
        raise Refused(
            f"the mask has changed since this image was made ({share:.1f} % of its pixels): "
            "generate it again, then save",
            409,
        )


async def _png(make: Callable[[], bytes], headers: dict[str, str] | None = None) -> Response:
    data = await asyncio.to_thread(make)
    return Response(data, media_type="image/png", headers=headers)


def _attachment(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"'}


def _span(request: Request) -> tuple[int, int]:
    offset, limit = _number(request, "offset"), _number(request, "limit")
    return offset or 0, _LIMIT if limit is None else limit


def _number(request: Request, name: str) -> int | None:
    """Return a whole number of the query; None where it is not given."""
    text = request.query_params.get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise Refused(f"{name} is '{text[:20]}': must be a whole number from 0")
    return int(text)
