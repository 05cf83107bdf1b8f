"""What the studio opens beside its models: data, a segmenter, and where pairs are saved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from semsynth.app.copies import Copies, why_no_copies
from semsynth.app.evaluator import ImageEvaluator, why_no_evaluator
from semsynth.app.label_view import LabelView
from semsynth.app.library import Item, Library
from semsynth.app.objects import Shelf
from semsynth.app.outputs import item_facts, made
from semsynth.app.refused import Refused
from semsynth.app.render import check_source
from semsynth.app.results import Result
from semsynth.app.save import SavedPairs, check_save_to
from semsynth.augmentation.edits.pair import Cutout
from semsynth.core.errors import UserError
from semsynth.core.logging import logger
from semsynth.data.dataset import PreparedDataset
from semsynth.data.labels import Array

if TYPE_CHECKING:
    from semsynth.app.models import StudioModel
    from semsynth.app.studio import Studio

Json = dict[str, Any]


class Opened:
    """What the studio has opened beside its models.

    Attributes:
        library: of ``--data``; None: there is none.
        shelf: its objects.
        evaluator: of ``--segmenter``; None: there is none.
        saved: where pairs go.
        copies: finds copies of its images; None: ``why_no_copies``.
    """

    def __init__(self, studio: Studio) -> None:
        """Open data and segmenter, and begin to index the data.

        Raises:
            UserError: one of them cannot be opened, has no class of any model, or pairs could not
                be saved.
        """
        config = studio.config
        self.studio = studio
        check_save_to(config.save_to)
        self.saved = SavedPairs(config.save_to)
        self._views: dict[str, LabelView] = {}
        self.library = None if config.data is None else Library(PreparedDataset.open(config.data))
        self.shelf = None if self.library is None else Shelf(self.library)
        self.why_no_copies = why_no_copies(self.library)
        self.copies = None
        if self.library is not None:
            _one_of(studio, self.view)
            self._choose_model()
            self.copies = None if self.why_no_copies else Copies(self.library)
            self.library.start()
        self.evaluator = None
        if config.segmenter is not None:
            evaluator = self.evaluator = ImageEvaluator.open(config.segmenter, config.device)
            _one_of(studio, lambda model: evaluator.of(model.mask_labels))

    def _choose_model(self) -> None:
        """Show that model of the package first that knows most of the data; say what it does not.

        A model that was named is first whatever it knows.
        """
        models = self.studio.models
        if not self.studio.config.model:
            order = sorted(models, key=lambda name: self._unknown(models[name]))
            self.studio.models = {name: models[name] for name in order}
        default = self.studio.default
        why = _problem(lambda: self.view(default))
        if why or self.view(default).unknown:
            logger.warning(why or self.view(default).line)

    def _unknown(self, model: StudioModel) -> float:
        """Return how many classes of the data a model does not know; infinite: none is its."""
        return np.inf if _problem(lambda: self.view(model)) else len(self.view(model).unknown)

    def close(self) -> None:
        """End the threads that look at the data."""
        if self.library is not None and self.shelf is not None:
            self.library.close()
            self.shelf.close()

    def view(self, model: StudioModel) -> LabelView:
        """Return the labels of the data as a model's.

        Raises:
            Refused: no data are open.
            UserError: no class of theirs is one of the model.
        """
        if model.id not in self._views:
            self._views[model.id] = LabelView.of(self.data.data, model.mask_labels)
        return self._views[model.id]

    @property
    def data(self) -> Library:
        """The data that are open; Refused where there are none."""
        if self.library is None:
            raise Refused("no data are open: start with semsynth app --data PREPARED", 404)
        return self.library

    def read_item(self, name: str) -> Array | None:
        """Return the image of an item, (H, W, C) as it is stored; None: there is no such item."""
        if self.library is None:
            return None
        try:
            item = self.library.find(name)
        except Refused:
            return None
        self.library.image(item)  # says what is missing where there is none
        return self.library.data.read_image(item.split, item.stem)

    def facts(self) -> Json:
        """Return the part of `GET /api/state` that is about all this."""
        name = None if self.library is None else self.library.data.root.name
        why, evaluator = why_no_evaluator(name), self.evaluator
        if evaluator is not None:
            why = _problem(lambda: evaluator.of(self.studio.default.mask_labels))
        return {
            "data": self._data_facts(),
            "evaluator": not why,
            "why_no_evaluator": why or None,
            "copies": not self.why_no_copies,
            "why_no_copies": self.why_no_copies or None,
        }

    def _data_facts(self) -> Json | None:
        if self.library is None:
            return None
        info = self.library.data.info
        return {
            "name": info.name,
            "splits": {split: len(content.stems) for split, content in info.splits.items()},
            "models": [
                x.id for x in self.studio.models.values() if not _problem(partial(self.view, x))
            ],
            **self.of_model(self.studio.default),
        }

    def of_model(self, model: StudioModel) -> Json:
        """Return the classes of the data that a model knows, and how its labels match theirs."""
        try:
            view = self.view(model)
        except UserError as error:
            return {"classes": [], "labels_match": str(error)}
        return {"classes": self.data.classes(view), "labels_match": view.line}

    def read_object(self, name: str, model: StudioModel) -> tuple[Cutout, str, Json]:
        """Return an object of the shelf for a model: it, its item, and what metadata say of it.

        Raises:
            Refused: 404, there is no such object; 400, the model does not know its class, or its
                pixels have another form than the model's.
        """
        if self.shelf is None:
            raise Refused("no data are open: start with semsynth app --data PREPARED", 404)
        one = self.shelf.find(name)
        cutout, facts, view = self.shelf.cutout(one), self.shelf.facts(one), self.view(model)
        if view.names.get(facts["class"]) is None:
            raise Refused(f"{model.name} does not know '{facts['class']}': leave this object out")
        image, label = check_source(cutout.image, model), int(view.to_model[one.piece.label])
        return replace(cutout, image=image, labels=(label,)), one.item.id, facts

    def mask_of(self, result: Result, mask_source: str | None = None) -> Item | None:
        """Return the item that a mask was begun from, as the page says or as it equals; or None."""
        if self.library is None:
            return None
        if mask_source is not None:
            return self.library.find(mask_source)
        model = self.studio.models[result.model]
        if _problem(lambda: self.view(model)):
            return None
        return self.library.same_mask(result.mask_HW, self.view(model))

    def images_of(self, result: Result) -> list[Item]:
        """Return the items whose pixels an image may show, at however many removes."""
        return [self.data.find(name) for name in result.items]

    def made(self, result: Result, mask: Item | None) -> Json:
        """Return how an image was made; ``mask``: the item that its mask was begun from."""
        model = self.studio.models[result.model]
        pixels_from = [item_facts(item, self.data) for item in self.images_of(result)]
        mask_from = None if mask is None else item_facts(mask, self.data)
        return made(result, model, mask_from, pixels_from)


def _one_of(studio: Studio, fits: Callable[[StudioModel], Any]) -> None:
    """Check that one of the open models fits; UserError of the first one where none does."""
    problems = [_problem(partial(fits, model)) for model in studio.models.values()]
    if all(problems):
        raise UserError(problems[0])


def _problem(what: Callable[[], Any]) -> str:
    """Return the line of a UserError that something raises; empty: it raises none."""
    try:
        what()
    except UserError as error:
        return str(error)
    return ""
