"""What the studio opens beside its models: data, a segmenter, and where pairs are saved."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from semsynth.app.copies import Copies, why_no_copies
from semsynth.app.judge import Judging, why_no_judge
from semsynth.app.label_view import LabelView
from semsynth.app.library import Item, Library
from semsynth.app.objects import Shelf
from semsynth.app.refused import Refused
from semsynth.app.results import Result
from semsynth.app.save import SavedPairs, check_save_to
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
        judging: of ``--segmenter``; None: there is none.
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
        self.judging = None
        if config.segmenter is not None:
            judging = self.judging = Judging.open(config.segmenter, config.device)
            _one_of(studio, lambda model: judging.of(model.mask_labels))

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
        why, judging = why_no_judge(name), self.judging
        if judging is not None:
            why = _problem(lambda: judging.of(self.studio.default.mask_labels))
        return {
            "data": self._data_facts(),
            "judge": not why,
            "why_no_judge": why or None,
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
            **self.of_model(self.studio.default),
        }

    def of_model(self, model: StudioModel) -> Json:
        """Return the classes of the data that a model knows, and how its labels match theirs."""
        try:
            view = self.view(model)
        except UserError as error:
            return {"classes": [], "labels_match": str(error)}
        return {"classes": self.data.classes(view), "labels_match": view.line}

    def origin(self, result: Result, mask_source: str | None) -> list[Item]:
        """Return the items that an image and its mask were begun from, the mask's first."""
        if self.library is None:
            return []
        model = self.studio.models[result.model]
        found = [] if mask_source is None else [self.library.find(mask_source)]
        if not found and not _problem(lambda: self.view(model)):
            same = self.library.same_mask(result.mask_HW, self.view(model))
            found = [] if same is None else [same]
        return found + self.images_of(result)

    def images_of(self, result: Result) -> list[Item]:
        """Return the item that an image was made from, at however many removes; none: no item."""
        name, seen = result.source, {result.id}
        while name is not None and name not in seen:
            seen.add(name)
            entry = self.studio.results.find(name)
            if entry is None:
                try:
                    return [self.data.find(name)]
                except Refused:
                    return []
            name = entry.source if isinstance(entry, Result) else None
        return []


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
