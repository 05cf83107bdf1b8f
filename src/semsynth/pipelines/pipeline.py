"""``SemanticDiffusionPipeline``: the Diffusers pipeline from masks to images."""

from __future__ import annotations

import copy
import inspect
import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput, ModelMixin
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from semsynth.core.config import parse
from semsynth.core.devices import pick_device
from semsynth.core.errors import UserError
from semsynth.core.files import atomic_folder, read_bytes, require_space, sha256_file
from semsynth.core.logging import warn_once
from semsynth.data.image_files.masks import MasksAs
from semsynth.data.instances import instance_edges
from semsynth.data.labels import Array, LabelSet
from semsynth.diffusion.config import (
    DEFAULT_STRENGTH,
    DiffusionConfig,
    SamplerSettings,
    check_strength,
)
from semsynth.diffusion.sampling import check_scheduler, make_scheduler
from semsynth.models.codecs.codec import Codec, open_codec
from semsynth.models.codecs.vae import open_vae, wrap_vae
from semsynth.models.config import ModelConfig
from semsynth.models.sdm.unet import SemanticUNet
from semsynth.pipelines.formats.diffusers_folder import (
    CONFIG,
    FINAL,
    MODEL_INDEX,
    VAE,
    check_folder,
    checkpoint_sha256,
    finish_folder,
    no_progress_bar,
    read_config,
    translate_load_errors,
    translate_save_errors,
)
from semsynth.pipelines.formats.examples import EXAMPLES, read_examples
from semsynth.pipelines.formats.hub import check_publishable, fetch, publish, split_options
from semsynth.pipelines.formats.model_card import has_card, read_scores, write_card
from semsynth.pipelines.formats.model_file import (
    ModelFile,
    check_network,
    licence,
    load_model_file,
    load_network,
    save_model_file,
)
from semsynth.pipelines.formats.pretrained import find_model, is_of_package
from semsynth.pipelines.from_image import FromImage, Images, read_images, read_regions
from semsynth.pipelines.inputs import (
    Callback,
    Mask,
    check_callback,
    read_counts,
    read_instances,
    read_masks,
    step_hook,
)
from semsynth.pipelines.outputs import (
    Generators,
    OutputType,
    check_output_type,
    make_generators,
    to_output,
)
from semsynth.pipelines.summary import in_html, in_lines
from semsynth.pipelines.synthesizer import Synthesizer
from semsynth.pipelines.unsupported import (
    ATTRIBUTES,
    refuse_freeu,
    refuse_unsupported_arguments,
    warn_never_sliced,
)
from semsynth.pipelines.variation import Variation


class SemanticDiffusionPipeline(DiffusionPipeline):
    """A trained generator: a Diffusers pipeline from masks to images.

    ``from_pretrained`` and ``save_pretrained`` read and write Diffusers folders;
    ``from_checkpoint`` also reads the ``final_model.pth`` of a run, which ``save_checkpoint``
    writes.

    Example:
        >>> pipe = SemanticDiffusionPipeline.from_checkpoint("run")
        >>> image = pipe("mask.png", num_inference_steps=2).images[0]
        >>> image.size
        (64, 64)

    ``pipe(mask)`` generates images: see ``__call__``. ``print(pipe)`` says what the model is; in
    a notebook ``pipe`` shows its labels and their colours.

    Attributes:
        unet: the network; ``unet(x_BCHW, t_B, condition_BKHW).sample`` is one pass.
        scheduler: what ``pipe(mask)`` samples with; any of Diffusers' schedulers:
            ``pipe.scheduler = X.from_config(pipe.scheduler.config)``.
        vae: the autoencoder of a model with codec ``vae``, else None; a folder has it in ``vae``.
        synthesizer: generates the images; precision, compilation and caching are its settings.
        checkpoint_sha256: of what it was loaded from, empty for one in training.
        examples: a PNG file's bytes, the strip of images of its card; None without one.
    """

    unet: SemanticUNet
    scheduler: Any  # Diffusers' schedulers share no typed interface
    vae: ModelMixin | None
    examples: bytes | None = None

    model_cpu_offload_seq = "unet->vae"
    _optional_components: ClassVar[list[str]] = ["vae"]
    _callback_tensor_inputs = ("latents",)

    def __init__(
        self,
        unet: SemanticUNet,
        scheduler: SchedulerMixin,
        labels: dict[str, Any] | None = None,
        model: dict[str, Any] | None = None,
        diffusion: dict[str, Any] | None = None,
        height: int | None = None,
        width: int | None = None,
        facts: dict[str, Any] | None = None,
        vae: ModelMixin | None = None,
    ) -> None:
        """Put the parts together; the plain values are those of ``ModelFile`` as JSON.

        Diffusers takes arguments without a default for networks, so all others have one. ``facts``
        (the metadata) may be omitted, and ``vae``, which is then loaded from where the model says;
        labels, model and diffusion, if ``unet`` comes from a folder: they are in it.

        Raises:
            UserError: a value that is missing or wrong.
        """
        super().__init__()
        if labels is model is diffusion is None:
            found = _config_beside(unet)
            labels, model, diffusion = map(found.get, ("labels", "model", "diffusion"))
            facts = facts or found.get("facts")
        if labels is None or model is None or diffusion is None or not height or not width:
            raise UserError(
                "a SemanticDiffusionPipeline needs labels, model, diffusion, height and width; "
                "load one with from_pretrained or from_checkpoint, or use from_model_file"
            )
        self._labels = LabelSet.from_json(labels)
        self._model = parse(ModelConfig, model, f"{CONFIG}: model")
        self._diffusion = parse(DiffusionConfig, diffusion, f"{CONFIG}: diffusion")
        behind_vae = vae is not None or self._model.vae is not None
        # One without weights is made when it is first asked for.
        self._codec: Codec | None = self._vae_codec(vae) if behind_vae else None
        vae = getattr(self._codec, "vae", None)
        self.register_modules(unet=unet, scheduler=scheduler, vae=vae)
        self.register_to_config(
            labels=labels,
            model=model,
            diffusion=diffusion,
            height=height,
            width=width,
            facts=facts or {},
        )
        self.checkpoint_sha256 = ""
        self._synthesizer: Synthesizer | None = None
        check_network(self._plain_unet, self._model, self._labels)

    @classmethod
    def wrap(
        cls,
        file: ModelFile,
        unet: SemanticUNet,
        sha256: str = "",
        vae: ModelMixin | None = None,
    ) -> Self:
        """Return a pipeline around a network that already has its weights.

        ``vae``: its autoencoder; None where it has none, or to load it from where the model says.
        """
        pipe = cls(
            unet,
            make_scheduler(
                file.diffusion, SamplerSettings().of_model(file.diffusion.evaluations).sampler
            ),
            labels=file.labels.to_json(),
            model=file.model.model_dump(mode="json"),
            diffusion=file.diffusion.model_dump(mode="json"),
            height=file.height,
            width=file.width,
            facts=file.metadata,
            vae=vae,
        )
        pipe.checkpoint_sha256 = sha256
        return pipe

    @classmethod
    def from_model_file(cls, file: ModelFile, device: str = "cpu", sha256: str = "") -> Self:
        """Return a pipeline with the file's own tensors as its weights (no copy on the CPU).

        Raises:
            UserError: weights that do not fit the configuration, or no such device.
        """
        return cls.wrap(file, load_network(file).to(pick_device(device)), sha256)

    @classmethod
    def from_checkpoint(cls, path: str | Path, device: str = "auto") -> Self:
        """Load ``final_model.pth``, the run folder that holds one, or a Diffusers folder.

        Or a model of the package by its name, such as ``aerial``.

        Raises:
            UserError: see ``load_model_file`` and ``from_pretrained``; or no such device.
        """
        path = find_model(path)
        if (path / MODEL_INDEX).is_file():
            where = pick_device(device)
            with no_progress_bar():
                pipe: Self = cls.from_pretrained(path).to(where)
            pipe.checkpoint_sha256 = checkpoint_sha256(path)
            return pipe
        path = path / FINAL if path.is_dir() else path
        file = load_model_file(path)
        try:
            return cls.from_model_file(file, device, sha256_file(path))
        except UserError as error:
            raise UserError(f"{path}: {error}") from None

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Self:
        """Load a Diffusers folder, a repository of the Hub, or a model of the package by its name.

        See Diffusers for the options.

        Raises:
            UserError: no such folder, not one of ours, or one that is damaged.
        """
        name = os.fspath(pretrained_model_name_or_path)
        file = find_model(name)
        if is_of_package(file):
            return cls._from_package(file, kwargs)
        check_folder(name)
        for key in ("dtype", "torch_dtype"):
            if isinstance(kwargs.get(key), torch.dtype) and (Path(name) / VAE).is_dir():
                # Its hash is that of its float32 weights, and so are its computations.
                kwargs[key] = {VAE: torch.float32, "default": kwargs[key]}
        with translate_load_errors(name):
            pipe: Self = super().from_pretrained(name, **kwargs)
        strip = Path(name) / EXAMPLES
        pipe.examples = read_bytes(strip) if strip.is_file() else None
        return pipe

    @classmethod
    def _from_package(cls, file: Path, options: dict[str, Any]) -> Self:
        """Load a model of the package; Diffusers itself acts on its options, in a folder."""
        pipe = cls.from_checkpoint(file, "cpu")
        sha256 = pipe.checkpoint_sha256
        if options:
            with TemporaryDirectory(ignore_cleanup_errors=True) as folder, no_progress_bar():
                pipe.save_pretrained(folder)
                pipe = super().from_pretrained(folder, **{"disable_mmap": True, **options})
            pipe.checkpoint_sha256 = sha256
        return pipe

    @classmethod
    def load_config(cls, *args: Any, **kwargs: Any) -> Any:
        """Read ``model_index.json`` as Diffusers does; the network's class is always ours.

        So a folder loads wherever the module was when it was saved, and none can name other code.
        """
        found = super().load_config(*args, **kwargs)
        index = found[0] if isinstance(found, tuple) else found
        if "unet" in index:
            index["unet"] = [SemanticUNet.__module__, SemanticUNet.__name__]
        if isinstance(index.get("_class_name"), list):
            index["_class_name"] = index["_class_name"][-1]  # no code of a folder is run
        if args and os.path.isdir(args[0]):
            for key, value in read_config(args[0]).items():
                index.setdefault(key, value)
        return found

    @classmethod
    def download(cls, pretrained_model_name: str, **kwargs: Any) -> str:
        """Fetch a repository of the Hub and return its folder; options as ``from_pretrained``."""
        folder = fetch(pretrained_model_name, kwargs)
        check_folder(folder)
        return folder

    def save_pretrained(
        self, save_directory: str | Path, *args: Any, push_to_hub: bool = False, **kwargs: Any
    ) -> None:
        """Write a Diffusers folder, with a model card where the metadata suffice for one.

        Args:
            save_directory: the folder; a new one appears whole or not at all.
            args: see Diffusers, as for kwargs: ``safe_serialization``, ``variant``,
                ``max_shard_size``.
            push_to_hub: see ``push_to_hub``; ``repo_id`` is the folder's name by default.

        Raises:
            UserError: the folder cannot be written, or there is too little space.
        """
        folder = Path(save_directory)
        if folder.is_file():
            raise UserError(f"{folder}: is a file; save_pretrained needs a folder")
        if push_to_hub:
            check_publishable(self.metadata)
        options, repository = split_options(kwargs), kwargs.pop("repo_id", folder.name)
        n_bytes = _n_bytes(self._plain_unet) + (0 if self.vae is None else _n_bytes(self.vae))
        require_space(folder, n_bytes, "the model")
        name = (repository,) if push_to_hub else ()
        with nullcontext(folder) if folder.exists() else atomic_folder(folder) as place:
            with translate_save_errors(str(folder)):
                super().save_pretrained(place, *args, **kwargs)
            finish_folder(place)
            if has_card(self.metadata):
                write_card(self, place, *name)
        if push_to_hub:
            publish(self, folder, repository, options)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:
        """Publish the model with its card; options as in Diffusers.

        Raises:
            UserError: the licence of the data is unknown, before anything is sent.
        """
        check_publishable(self.metadata)
        options = split_options(kwargs)
        with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            self.save_pretrained(folder, **kwargs)
            write_card(self, Path(folder), repo_id)
            return publish(self, Path(folder), repo_id, options)

    def add_scores(self, report: str | Path) -> None:
        """Add the scores of a ``report.json`` of `semsynth evaluate` to the metadata.

        Raises:
            UserError: it is not a report, or one of another checkpoint.
        """
        scores = read_scores(report, self.checkpoint_sha256)
        self.register_to_config(facts={**self.metadata, "scores": scores})

    def add_examples(self, samples: str | Path, data: str | Path | None = None) -> None:
        """Add a strip of samples to the card: masks, real images, generated images.

        Args:
            samples: folder of `semsynth generate` with this model.
            data: prepared data with the real images of the masks; they are shown only where the
                data's licence says that they may be passed on.

        Raises:
            UserError: samples of another model, or data of other masks.
        """
        place = None if data is None else Path(data)
        found = read_examples(Path(samples), place, self.labels, self.checkpoint_sha256)
        self.examples = found.png
        self.register_to_config(facts={**self.metadata, "examples": found.text})

    def save_checkpoint(self, path: str | Path) -> None:
        """Write ``final_model.pth``: the pipeline but its scheduler, in one file."""
        save_model_file(Path(path), self.model_file)

    @property
    def model_file(self) -> ModelFile:
        """Everything but the scheduler, as one value; the weights are the network's own."""
        return ModelFile(
            model=self._model,
            diffusion=self._diffusion,
            labels=self._labels,
            height=self.height,
            width=self.width,
            weights=self._plain_unet.state_dict(),
            metadata=self.config["facts"],
        )

    @property
    def synthesizer(self) -> Synthesizer:
        """The pipeline's parts as a ``Synthesizer``; it follows exchanged parts and devices.

        Raises:
            UserError: ``vae`` was exchanged for one that the model was not trained behind.
        """
        if self._synthesizer is None:
            size = (self.height, self.width)
            self._synthesizer = Synthesizer(
                self.unet, self.codec, self._model, self._diffusion, self._labels, size
            )
        parts = self._synthesizer
        parts.network, parts.codec, parts.metadata = self.unet, self.codec, self.config["facts"]
        parts.execution_device = self._execution_device
        parts.checkpoint_sha256 = self.checkpoint_sha256
        return parts

    @torch.no_grad()
    def generate(
        self,
        mask_BHW: npt.NDArray[Any],
        seeds: Sequence[int],
        settings: SamplerSettings | None = None,
        edges_BHW: npt.NDArray[Any] | None = None,
        real: FromImage | None = None,
    ) -> npt.NDArray[np.uint8]:
        """Generate an image for each mask with a sampler by name: ``Synthesizer.generate``."""
        images = self.synthesizer.generate(mask_BHW, seeds, settings, edges_BHW, real)
        self.maybe_free_model_hooks()
        return images

    @torch.no_grad()
    def __call__(
        self,
        mask: Mask | None = None,
        num_images: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        guidance_interval: tuple[float, float] | None = None,
        generator: Generators = None,
        seeds: Sequence[int] | int | None = None,
        output_type: OutputType = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        latents: Tensor | None = None,
        instances: Mask | None = None,
        masks_as: MasksAs = "auto",
        num_images_per_prompt: int | None = None,
        image: Images | None = None,
        strength: float | None = None,
        keep: Images | None = None,
        variation: Variation | None = None,
        **unknown: Any,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Generate images of masks with ``scheduler``.

        Args:
            mask: label ids or their colours, as a PIL image (L, P or 16 bits; RGB), an array or
                tensor ((H, W), (B, H, W); colours (H, W, 3) uint8), a path, or a list of these.
                Images have the size of their masks, whatever it is: where the network could not
                halve a side, it is padded with unlabelled pixels, and the image is cropped.
            num_images: images of each mask, 1 by default; those of one mask follow each other.
            num_inference_steps: steps of ``scheduler``, 20 by default; a distilled model takes 1, 2
                or 4, by default its own (``evaluations``).
            guidance_scale: 1 is none, 0 ignores the mask; by default 1.5, or 1 for a model that
                was trained without mask dropout or is distilled.
            guidance_interval: the noise levels with guidance, from 0 (the image) to 1 (noise);
                all by default.
            generator: of noise, one or one for each image, which then depends on its own alone.
            seeds: in its place, an integer for each image, as for ``generate``.
            output_type: ``pil`` (of RGB or grey images); ``np`` or ``pt`` for float32 of 0 to 1,
                (N, H, W, C) or (N, C, H, W), 3 channels for RGB; ``latent`` for x0 as the network
                sees it (of ``codec``, padded).
            return_dict: False for a tuple instead of an output with ``.images``.
            callback_on_step_end: called with (pipe, step, timestep, {"latents": x}) after each
                step; may return {"latents": other}, or set ``pipe._interrupt``.
            callback_on_step_end_tensor_inputs: what it is given; there are only ``latents``.
            latents: the noise to start from, (N, C, h, w), standard normal.
            instances: for a model with ``instance_edges``, instance numbers in the form of masks.
            masks_as: ids, colors, or auto: what the masks hold, if it is not what they say.
            num_images_per_prompt: the same as ``num_images``, as other pipelines call it.
            image: a real image to start from, for all masks or one for each, of their size: a PIL
                image, an array (H, W, C) of integers as the model's images, a path, or a list.
            strength: how much of ``image`` is lost: it is noised to this share of the noise levels,
                and sampled from there in that share of the steps. Above 0, which gives the image
                itself, to 1, from noise alone; 0.5 by default.
            keep: (H, W) bool, the region of ``image`` to regenerate (True), for all masks or one
                for each; other pixels stay exactly as they are, but for a blended edge of 4 (or
                the codec's block).
            variation: (seed, amount): the noise is turned towards that of another seed, or of one
                for each image, by 0 (not at all) to 1 (all the way); 0.1 to 0.3 are neighbours.
            unknown: no others are taken; the error says what to use.

        Returns:
            ``.images``: a list of PIL images, or one array or tensor (``output_type``).

        Raises:
            UserError: an argument that is wrong or not for this pipeline, before any work.

        Example:
            >>> pipe = SemanticDiffusionPipeline.from_checkpoint("run")
            >>> images = pipe("mask.png", num_images=2, num_inference_steps=2, seeds=[0, 1]).images
            >>> [image.size for image in images]
            [(64, 64), (64, 64)]
        """
        if unknown:
            refuse_unsupported_arguments(unknown, CALL_ARGUMENTS)
        check_output_type(output_type, self._model)
        count, steps = read_counts(num_images, num_images_per_prompt, num_inference_steps)
        check_callback(callback_on_step_end, callback_on_step_end_tensor_inputs)
        synthesizer = self.synthesizer
        settings = SamplerSettings(None, steps, guidance_scale, guidance_interval)
        settings = synthesizer.complete(settings)
        scheduler = copy.deepcopy(self.scheduler)  # its state is that of one call
        check_scheduler(self._diffusion, scheduler)
        masks, edges = self._read(mask, instances, masks_as)
        real = self._read_real(image, strength, keep, masks.shape)
        synthesizer.check_guidance(settings.guidance_scale)
        size = (masks.shape[1], masks.shape[2])
        generators = make_generators(generator, seeds, len(masks) * count)
        if real is not None:
            real = real.repeated(count)
        known, start = synthesizer.start(scheduler, settings.steps, real)
        noise = synthesizer.noise(size, generators, scheduler, variation, latents)
        condition = synthesizer.encode(masks, edges)
        with self.progress_bar(total=start.count(scheduler)) as bar:
            on_step = step_hook(self, callback_on_step_end, bar)
            x0 = synthesizer.sample(
                condition, noise, generators, scheduler, settings, on_step, start
            )
        result = x0 if output_type == "latent" else synthesizer.decode(x0, size)
        if known is not None and output_type != "latent":
            result = known.finish(result)
        images = to_output(result, output_type, self._model.image_bits)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _read(
        self, mask: Mask | None, instances: Mask | None, masks_as: MasksAs
    ) -> tuple[Array, Array | None]:
        if mask is None:
            raise UserError("mask= is missing: an image, array or path of label ids or colours")
        masks = read_masks(mask, self.synthesizer.mask_labels, masks_as)
        edges = None
        if instances is not None:
            edges = instance_edges(read_instances(instances, masks.shape))
        self.synthesizer.check_edges(edges)
        if text := self.synthesizer.describe_size(masks.shape[1], masks.shape[2]):
            warn_once(text)
        if edges is None and self.instance_edges:
            warn_once("the model was trained with the edges of instances; instances= is missing")
        return masks, edges

    def _read_real(
        self,
        image: Images | None,
        strength: float | None,
        keep: Images | None,
        masks: tuple[int, ...],
    ) -> FromImage | None:
        if image is None:
            for name, value in (("strength", strength), ("keep", keep)):
                if value is not None:
                    raise UserError(f"{name}= is for image=, a real image to start from: give one")
            return None
        strength = check_strength(DEFAULT_STRENGTH if strength is None else strength)
        images = read_images(image, self.synthesizer.pixels, masks)
        regions = None if keep is None else read_regions(keep, masks)
        return FromImage(images, strength, regions)

    @property
    def codec(self) -> Codec:
        """From images to what the network sees, and back.

        Raises:
            UserError: ``vae`` was exchanged for one that the model was not trained behind.
        """
        if self._codec is None:
            self._codec = open_codec(self._model)
        if getattr(self._codec, "vae", None) is not self.vae:
            self._codec = self._vae_codec(self.vae)
        return self._codec

    def _vae_codec(self, vae: ModelMixin | None) -> Any:
        config = self._model.vae
        if config is None:
            raise UserError(f"vae: the model works behind codec '{self._model.codec}', without one")
        return open_vae(config) if vae is None else wrap_vae(vae, config, "vae")

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Go to a device or dtype, as in Diffusers; an autoencoder stays float32 (``VaeCodec``)."""
        vae = self.vae
        if vae is None:
            return super().to(*args, **kwargs)  # type: ignore[no-any-return]
        self.register_modules(vae=None)
        try:
            super().to(*args, **kwargs)
        finally:
            self.register_modules(vae=vae)
        vae.to(self.unet.device)
        return self

    @property
    def labels(self) -> LabelSet:
        """The label set that the generator was trained on."""
        return self._labels

    @property
    def height(self) -> int:
        """Height of the images that it was trained on, in pixels."""
        return int(self.config["height"])

    @property
    def width(self) -> int:
        """Width of the images that it was trained on, in pixels."""
        return int(self.config["width"])

    @property
    def evaluations(self) -> int:
        """Evaluations of the network that a distilled model takes for an image; 0: any number."""
        return self._diffusion.evaluations

    @property
    def instance_edges(self) -> bool:
        """Whether the edges between objects are a part of its condition."""
        return self._model.instance_edges

    @property
    def metadata(self) -> dict[str, Any]:
        """What is known of the training: recipe, step, data set, licence, versions."""
        return dict(self.config["facts"])

    @property
    def licence(self) -> str:
        """Licence of the data that it was trained on, ``unknown`` if it was not given."""
        return licence(self.metadata)

    @property
    def _plain_unet(self) -> SemanticUNet:
        # torch.compile wraps a network.
        return getattr(self.unet, "_orig_mod", self.unet)  # type: ignore[return-value]

    def __repr__(self) -> str:
        """Return what the model is, in some lines; ``pipe.config`` has all of it."""
        return in_lines(self)

    def _repr_html_(self) -> str:
        """Return the same for a notebook, with the labels' colours."""
        return in_html(self)

    def __getattr__(self, name: str) -> Any:
        """Say in the AttributeError why another pipeline's attribute is absent here."""
        if name in ATTRIBUTES:
            raise AttributeError(f"{type(self).__name__} has no {name}: {ATTRIBUTES[name]}")
        return super().__getattr__(name)

    def set_attention_slice(self, slice_size: Any) -> None:
        """Do nothing, with a warning unless slicing is turned off: attention is never sliced."""
        if slice_size is not None:
            warn_never_sliced("attention slicing")

    def set_use_memory_efficient_attention_xformers(
        self, valid: bool, attention_op: Any = None
    ) -> None:
        """Do nothing, with a warning unless it is turned off: attention is PyTorch's."""
        if valid:
            warn_never_sliced("xformers")

    def enable_freeu(self, *args: Any, **kwargs: Any) -> None:
        """Refuse it: see ``refuse_freeu``."""
        refuse_freeu()

    def fuse_qkv_projections(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: queries, keys and values come from one projection already."""


def _config_beside(unet: Any) -> dict[str, Any]:
    """Return what the folder that a network was loaded from says of the model.

    Plain ``DiffusionPipeline.from_pretrained`` loads the parts alone.
    """
    place = Path(str(getattr(unet, "config", {}).get("_name_or_path") or ""))
    return read_config(place.parent) if place.name == "unet" else {}


def _n_bytes(network: ModelMixin) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())


CALL_ARGUMENTS = tuple(inspect.signature(SemanticDiffusionPipeline.__call__).parameters)[1:-1]
