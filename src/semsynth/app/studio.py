"""``Studio``: what is open (models, data, a segmenter), and what was made of it."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import numpy as np

from semsynth.app.config import MAX_SIDE, MAX_UPLOAD_BYTES, AppConfig
from semsynth.app.models import StudioModel, open_models
from semsynth.app.queue import SamplerQueue, Turn
from semsynth.app.refused import Refused
from semsynth.app.render import Canvas, Order, Source, check_source, prepare
from semsynth.app.results import Result, ResultStore
from semsynth.app.transplants import PlacedOrder, Transplant
from semsynth.augmentation.edits.pair import Cutout
from semsynth.core.version import __version__
from semsynth.data.labels import Array
from semsynth.pipelines.formats.pretrained import pretrained_names


class Studio:
    """All that the pages of one `semsynth app` share.

    Attributes:
        config: the flags.
        token: what a request must know; None: nothing.
        models: by id, the default first.
        results: what was made, and images that were uploaded.
        queue: in which everything that computes waits for its turn.
        read_item: returns the image of an item of the data, (H, W, C), by its id; None where there
            is no such item. Set by who reads the data.
        read_object: returns an object of the shelf for a model: it, the id of its item, and what
            metadata say of it; Refused where there is none. Set as ``read_item``.
        facts: add to what `GET /api/state` says; of who reads data and segmenter.
        closing: called when the studio is closed.
    """

    def __init__(self, config: AppConfig) -> None:
        """Open the models of a configuration.

        Raises:
            UserError: a model that there is not, or that cannot be loaded.
        """
        self.config = config
        self.token = secrets.token_urlsafe(18) if config.token else None
        opened = open_models(config.model or tuple(pretrained_names()), config.device)
        self.models: dict[str, StudioModel] = {model.id: model for model in opened}
        self.results = ResultStore()
        self.queue = SamplerQueue()
        self.read_item: Callable[[str], Array | None] = lambda name: None
        self.read_object: Callable[[str, StudioModel], tuple[Cutout, str, dict[str, Any]]]
        self.facts: list[Callable[[], dict[str, Any]]] = []
        self.closing: list[Callable[[], object]] = []

    @property
    def default(self) -> StudioModel:
        """The model that is shown first."""
        return next(iter(self.models.values()))

    def model(self, name: str | None) -> StudioModel:
        """Return a model by its id; None: the default.

        Raises:
            Refused: 404, there is none.
        """
        if name is None:
            return self.default
        if name not in self.models:
            raise Refused("no such model is open: reload the page", 404)
        return self.models[name]

    def source(self, name: str | None, model: StudioModel) -> Source | None:
        """Return the image of a result, an upload or an item of the data, for a model.

        Raises:
            Refused: 404, there is none; 400, the model's images have another form.
        """
        if name is None:
            return None
        kept = self.results.find(name)
        image = self.read_item(name) if kept is None else kept.image_HWC
        if image is None:
            raise Refused("the image to start from is no longer kept: choose it again", 404)
        items = (name,) if kept is None else kept.items
        return Source(check_source(image, model), items)

    def placed(self, orders: list[PlacedOrder], model: StudioModel) -> tuple[Transplant, ...]:
        """Return objects of the shelf, for a model.

        Raises:
            Refused: 404, there is no such object; 400, it is nothing for the model.
        """
        found = []
        for one in orders:
            cutout, item, facts = self.read_object(one.id, model)
            found.append(Transplant(one.number, (one.top, one.left), cutout, item, facts))
        return tuple(found)

    def submit(
        self,
        work: Callable[[Turn], Any],
        client: str,
        lane: str,
        number: int | None = None,
        live: bool = False,
    ) -> Turn:
        """Queue work of a page: what its ``done`` gives is what ``work`` returns.

        Args:
            work: is given its turn, and should call its ``report`` between steps.
            client: the page.
            lane: which of its places; newer work of a lane cancels older.
            number: rising; None: newer than all before.
            live: go before work that is not.

        Raises:
            Refused: see ``SamplerQueue.submit``.
        """
        if number is None:
            number = self.queue.next_number(client, lane)
        turn = Turn(client, lane, number, live, work)
        self.queue.submit(turn)
        return turn

    def warm(self) -> None:
        """Let the worker make an image of each fast model, so that no page waits for a first one.

        PyTorch chooses and prepares its kernels then, and Diffusers loads the scheduler.
        """
        for model in self.models.values():
            mask = np.full(model.size, model.labels.trainable[0].id)
            order = Order(client="studio", lane=model.id, number=0, quality="live")
            if model.evaluations:
                self.submit(prepare(model, order, Canvas(mask)).run, "studio", model.id)

    def keep(self, result: Result) -> Result:
        """Keep a result, and return it."""
        self.results.add(result)
        return result

    def state(self) -> dict[str, Any]:
        """Return what a page needs to begin, JSON values."""
        models = [model.facts() for model in self.models.values()]
        for facts in models:
            facts["default"] = facts["id"] == self.default.id
        found: dict[str, Any] = {
            "version": __version__,
            "models": models,
            "save_to": str(self.config.save_to),
            "limits": {"upload_bytes": MAX_UPLOAD_BYTES, "side": MAX_SIDE},
            "queue": self.queue.max_waiting,
            "upload": True,
        }
        for facts_of in self.facts:
            found |= facts_of()
        return found

    def close(self) -> None:
        """End the worker, and what else was opened; waits for the step that is being computed.

        A thread that computes while the interpreter is taken down would abort the process.
        """
        self.queue.close()
        self.queue.join()
        for close in self.closing:
            close()
