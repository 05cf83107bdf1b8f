"""What a draw makes for its arms: a generator, edited pairs, synthetic images, filtered labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from semsynth.augmentation.experiment.arms import (
    ARMS,
    BASELINE,
    MASK_TEACHERS,
    TEACHERS,
    Arm,
    Masks,
    Start,
)
from semsynth.augmentation.experiment.config import ExperimentConfig
from semsynth.augmentation.experiment.draws import (
    Draw,
    Made,
    Part,
    apart_from,
    costing,
    others,
    part_of,
    write_union,
)
from semsynth.augmentation.experiment.label_next import with_more_labels
from semsynth.augmentation.experiment.overlap import unlabelled_images
from semsynth.augmentation.experiment.pseudo_labels import pseudo_labelled, united
from semsynth.augmentation.experiment.settings import (
    edit_settings,
    filter_settings,
    generate_settings,
    plain,
    recipe_settings,
    segment_settings,
)
from semsynth.augmentation.subset import SPLIT
from semsynth.core.errors import UserError
from semsynth.core.rng import derive_seed
from semsynth.data.dataset import PreparedDataset
from semsynth.data.manifest import read_manifest
from semsynth.pipelines.formats.diffusers_folder import checkpoint_sha256
from semsynth.pipelines.formats.pretrained import find_model
from semsynth.segmentation.config import SegmentTrainConfig
from semsynth.training.recipe import Recipe, TrainConfig, load_recipe

# The split of the images that a teacher of half of the draw does not know.
HALF = "other_half"
# So many images tell how near real images come to each other.
_HELD_OUT = 100
ALONE = "1/1"  # a task of a job array makes the whole of what it needs


@dataclass(frozen=True)
class Stages:
    """Makes what the arms of one draw need; each thing once, kept by its content.

    Attributes:
        config: of the experiment.
        data: the pool.
        pool: the images of the pool that may be drawn.
        draw: the images of this draw.
        others: the generator's other data (`--generator-data`).
    """

    config: ExperimentConfig
    data: PreparedDataset
    pool: tuple[str, ...]
    draw: Draw
    others: Part | None = None

    def check(self, arms: Sequence[Arm]) -> None:
        """Check what the arms need of the data.

        Raises:
            UserError: what is missing.
        """
        for arm in arms:
            if arm.masks == "pool":
                self.masks("pool")
            if arm.needs_unlabelled or self.config.generator_unlabelled:
                _ = self.unlabelled
            if arm.more_labels:
                _ = self._rest_for(f"--arms {arm.name}")
        if any(arm.synthetic or arm.longer for arm in arms):
            _ = self.recipe

    def real(self, part: float = 1.0) -> Made:
        """Return the draw's images, or the first of them: a share ``part``."""
        stems = self.draw.stems[: part_of(len(self.draw.stems), part)]
        return self._union("real", [self._part(stems)])

    def rest(self) -> list[str]:
        """Return the images of the pool that were not drawn."""
        return others(self.pool, self.draw.stems)

    def whole_pool(self) -> Made:
        """Return all images of the pool: the draw's and the others."""
        return self._union("pool", [self._part(self.pool)])

    def other_data(self) -> Made:
        """Return the generator's other data."""
        assert self.others is not None
        return self._union("other", [self.others])

    @cached_property
    def unlabelled(self) -> Made:
        """Return real images whose masks are not used."""
        if self.config.unlabelled is None:
            need, remedy = "arms of images without masks", "give --unlabelled, or drop them"
            return self._union("unlabelled", [self._rest_for(need, remedy)])
        return self._union("unlabelled", [unlabelled_images(self.config, self.data)])

    def _rest_for(self, what: str, remedy: str = "drop the arm") -> Part:
        """Return the images of the pool that were not drawn, which ``what`` needs."""
        if not self.rest():
            raise UserError(f"{what}: --n {len(self.draw.stems)} is the whole pool; {remedy}")
        return self._part(self.rest())

    def to_label(self) -> Part:
        """Return the images that have no mask yet, or are taken as if they had none."""
        if self.config.unlabelled is None:
            return self._part(self.rest())
        return unlabelled_images(self.config, self.data, self.draw.stems)

    def committee(self) -> list[Made]:
        """Return the segmenters of ``strong``, one for each seed."""
        return [self.segmenter(ARMS[BASELINE], i) for i in range(self.config.seeds)]

    def predicted(self) -> Made:
        """Return those real images with the masks that two segmenters of the draw agree on."""
        teachers = [self.segmenter(ARMS[name], 0) for name in MASK_TEACHERS]
        return pseudo_labelled(self.draw, self.unlabelled, teachers, self.config.device)

    def _part(self, stems: Any) -> Part:
        return Part(self.data, self.config.split, list(stems))

    def _union(self, name: str, parts: list[Part]) -> Made:
        key = [part.key for part in parts]
        return self.draw.plan(name, key, lambda folder: write_union(parts, folder))

    def _trained_on(self) -> Made:
        """Return the images of the draw's generator: its n, other data, images without masks."""
        parts = [self._part(self.draw.stems), *([] if self.others is None else [self.others])]
        if self.config.generator_unlabelled:
            return united(self.draw, parts, self.predicted())
        return self._union("trained-on", parts) if len(parts) > 1 else self.real()

    def generator(self) -> Made:
        """Return the run of the draw's generator, which saw its n images and what was given."""
        config, images = self.config, self._trained_on()
        words, recipe = self._words, self.recipe
        start = config.from_checkpoint
        key = [
            images.key,
            recipe_settings(recipe),
            None if start is None else checkpoint_sha256(find_model(start)),
        ]

        def build(folder: Path) -> None:
            from semsynth.training.loop import train

            data = images.make()
            with costing(self.draw.cost_file(folder), config.device) as cost:
                train(
                    TrainConfig(
                        recipe=config.recipe,
                        data=data,
                        output=folder,
                        set=words,
                        from_checkpoint=start,
                        device=config.device,
                    ),
                    on_checkpoint=lambda step, pipe: cost.save(),
                )

        return self.draw.plan("generator", key, build)

    @property
    def _words(self) -> tuple[str, ...]:
        """The changes of the recipe, with the seed of this draw."""
        return (*self.config.set, f"seed={derive_seed(self.draw.seed, 'generator') % 2**31}")

    @property
    def recipe(self) -> Recipe:
        """The changed recipe of the draw's generator."""
        return load_recipe(self.config.recipe, self._words)

    def count(self, which: Masks) -> int:
        """Return how many images ``samples`` makes for masks."""
        wanted = len(self.draw.stems) * self.config.images_per_real
        if which == "pool" or (which == "predicted" and self.config.unlabelled is None):
            return min(wanted, len(self.rest()))
        return wanted

    def masks(self, which: Masks) -> Made:
        """Return the pairs whose masks synthetic images are made for."""
        if which == "own":
            return self.real()
        if which in ("edited", "foreign"):
            return self.edited(which)
        if which == "predicted":
            return self.predicted()
        return self._union("rest", [self._rest_for("--arms pool_masks")])

    def edited(self, which: Masks = "edited") -> Made:
        """Return edited pairs of the draw: pixels as pasted, masks to match, regions.

        Or, for ``foreign``, pairs of the draw with masks of the generator's other data.
        """
        config, real = self.config, self.real()
        given, inputs = edit_settings(config, which == "foreign"), {"data": real}
        if which == "foreign":
            inputs["donors"] = self.other_data()
        given["count"] = len(self.draw.stems) * config.images_per_real
        given["seed"] = derive_seed(self.draw.seed, "edits") % 2**31

        def build(folder: Path) -> None:
            from semsynth.augmentation.edits.config import EditConfig
            from semsynth.augmentation.edits.run import edit

            folders: dict[str, Any] = {name: made.make() for name, made in inputs.items()}
            edit(EditConfig(**folders, output=folder, **given))

        key = [{name: made.key for name, made in inputs.items()}, plain(given)]
        return self.draw.plan(which, key, build)

    def pasted(self) -> Made:
        """Return those edited pairs whose images are right as they are, without synthesis."""
        edited = self.edited()

        def build(folder: Path) -> None:
            data = PreparedDataset.open(edited.make())
            lines = read_manifest(data.root)
            stems = [line["stem"] for line in lines if line.get("image") == "pasted"]
            if not stems:
                raise UserError(
                    "--arms geometry: no edit of these kinds has an image without synthesis; give "
                    "--edit kinds=transplant,move,remove, or drop the arm"
                )
            write_union([Part(data, SPLIT, stems)], folder)

        return self.draw.plan("pasted", edited.key, build)

    def samples(self, which: Masks, start: Start, limit: int | None = None) -> Made:
        """Return images that the draw's generator makes for masks, from noise or from images.

        Args:
            which: masks.
            start: what they are made from.
            limit: at most so many masks; None: as the arms have it.
        """
        from semsynth.pipelines.generate.config import GenerateConfig

        config, masks, generator = self.config, self.masks(which), self.generator()
        settings = generate_settings(config)
        settings["per_mask"] = config.images_per_real if which == "own" else 1
        settings["seed"] = derive_seed(self.draw.seed, "samples", which, start) % 2**31
        if start == "image":
            settings |= {"from_image": True, "strength": config.strength}
            if which == "edited" and config.keep != "none":
                settings["keep"] = config.keep
        if which in ("pool", "predicted") or limit is not None:
            settings["limit"] = limit or len(self.draw.stems) * config.images_per_real

        def build(folder: Path) -> None:
            from semsynth.pipelines.generate.run import generate

            generate(
                GenerateConfig(
                    model=generator.make(),
                    data=masks.make(),
                    split=SPLIT,
                    output=folder,
                    device=config.device,
                    shard=ALONE,
                    **settings,
                )
            )

        key = [generator.key, masks.key, plain(settings)]
        return self.draw.plan(f"samples-{which}-{start}", key, build)

    def filtered(self, samples: Made, name: str) -> Made:
        """Return samples whose labels are filtered by the teacher."""
        config, given, real = self.config, filter_settings(self.config), self.real_of_filter()
        if config.teacher_part == "half":
            given.setdefault("mean_split", HALF)
        own, teacher = self.segmenter(ARMS[TEACHERS[config.teacher_part]], 0), config.teacher_file
        teacher_key = own.key if teacher is None else checkpoint_sha256(teacher)

        def build(folder: Path) -> None:
            from semsynth.augmentation.filter.config import FilterConfig
            from semsynth.augmentation.filter.run import filter_samples

            filter_samples(
                FilterConfig(
                    samples=samples.make(),
                    segmenter=str(own.make() if teacher is None else teacher),
                    real=real.make(),
                    output=folder,
                    device=config.device,
                    shard=ALONE,
                    **given,
                )
            )

        key = [samples.key, real.key, teacher_key, plain(given)]
        return self.draw.plan(f"filtered-{name}", key, build)

    def real_of_filter(self) -> Made:
        """Return the draw's images, and what tells copies and honest losses.

        In ``val`` others of the pool, of which only images are looked at: how near real images come
        to each other; of other sequences, fields or tiles, if there are any. With a teacher of one
        half of the draw, the other half: on it the teacher says what its losses on images are that
        it does not know.
        """
        stems, rest = self.draw.stems, self.rest()
        rest = apart_from(self.data, self.config.split, rest, stems) or rest
        parts = [self._part(stems)]
        if rest:
            spread = [rest[i] for i in range(0, len(rest), -(-len(rest) // _HELD_OUT))]
            parts.append(replace(self._part(spread), split_here="val"))
        if self.config.teacher_part == "half":
            unknown = stems[part_of(len(stems), ARMS["half"].part) :]
            parts.append(replace(self._part(unknown), split_here=HALF))
        return self._union("measure", parts)

    def extra(self, arm: Arm) -> Made | None:
        """Return the images that an arm has beside the real ones; None: none."""
        if arm.real == "generator_data":
            return self.other_data()
        if arm.masks is None:
            return None
        if arm.start is None:
            return self.pasted() if arm.masks == "edited" else self.masks(arm.masks)
        if arm.fresh:
            return self.masks(arm.masks)
        samples = self.samples(arm.masks, arm.start)
        return self.filtered(samples, f"{arm.masks}-{arm.start}") if arm.filtered else samples

    def labelled(self, arm: Arm) -> Made:
        """Return the real images of an arm with their masks."""
        if arm.more_labels:
            parts = self._part(self.draw.stems), self._rest_for(f"--arms {arm.name}")
            committee = self.committee() if arm.real == "next" else []
            return with_more_labels(self.draw, parts, committee, self.config.device)
        return self.whole_pool() if arm.real == "pool" else self.real(arm.part)

    def segmenter(self, arm: Arm, number: int) -> Made:
        """Return the trained segmenter of an arm, the ``number``-th of its seeds."""
        config = self.config
        real, extra = self.labelled(arm), self.extra(arm)
        settings = segment_settings(config, arm, extra is not None)
        settings["seed"] = derive_seed(self.draw.seed, "segmenter", number) % 2**31
        inputs = {"data": real}
        if extra is not None:
            inputs["extra"] = extra
        if arm.unlabelled:
            inputs["unlabelled"] = self.unlabelled
        key: list[Any] = [{k: v.key for k, v in inputs.items()}, plain(settings)]
        if arm.longer:
            key += [config.longer_most, self.generator().key]
        if arm.fresh:
            key += ["fresh", self.generator().key]

        def build(folder: Path) -> None:
            from semsynth.augmentation.fresh import train

            found: dict[str, Any] = {name: made.make() for name, made in inputs.items()}
            if arm.longer:
                found["steps"] = self.longer_steps()[0]
            if arm.fresh:
                found["fresh"] = str(self.generator().make())
            found |= {"output": folder, "device": config.device, "split": SPLIT}
            with costing(self.draw.cost_file(folder), config.device) as cost:
                train(SegmentTrainConfig(**{**settings, **found}), cost.save)

        return self.draw.plan(f"segmenter-{arm.name}-{number}", key, build)

    def longer_steps(self) -> tuple[int, bool]:
        """Return the steps of ``strong_longer``, and whether ``longer_most`` made them fewer.

        Its own and as many as fit into the time of the generator's training. A user who trains a
        generator trains one segmenter with it: so each of the seeds gets the whole time.
        """
        baseline, generator = self.segmenter(ARMS[BASELINE], 0), self.generator()
        times, most = self.draw.times_longer(baseline, generator), self.config.longer_most
        settings = segment_settings(self.config, ARMS[BASELINE], False)
        steps = int(settings.get("steps", SegmentTrainConfig.steps))
        return round(steps * (min(times, most) if most else times)), 0 < most < times
