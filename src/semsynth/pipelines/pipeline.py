"""``SemanticDiffusionPipeline``: masks in, images out; loading and saving."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import torch
from diffusers import ModelMixin

from semsynth.core.devices import pick_device
from semsynth.core.errors import UserError
from semsynth.core.files import atomic_folder, require_space
from semsynth.diffusion.sampling import make_scheduler
from semsynth.models.sdm.unet import SemanticUNet
from semsynth.pipelines.formats.diffusers_folder import (
    MODEL_INDEX,
    VAE,
    check_folder,
    checkpoint_sha256,
    no_progress_bar,
    strip_local_paths,
    translate_load_errors,
    translate_save_errors,
)
from semsynth.pipelines.formats.hub import check_publishable, fetch, publish, split_options
from semsynth.pipelines.formats.model_card import has_card, write_card
from semsynth.pipelines.formats.model_file import (
    ModelFile,
    load_model_file,
    load_network,
    save_model_file,
)
from semsynth.pipelines.formats.scores import read_scores
from semsynth.pipelines.painting import PaintingPipeline


class SemanticDiffusionPipeline(PaintingPipeline):
    """A trained generator: a Diffusers pipeline from masks to images.

    ``from_pretrained`` and ``save_pretrained`` read and write Diffusers folders;
    ``from_checkpoint`` also reads the ``final_model.pth`` of a run, which ``save_checkpoint``
    writes.

    ``pipe(mask)`` paints. Its arguments:

    - ``mask``: label ids or their colours, as a PIL image (L, P or 16 bits; RGB), an array or
      tensor ((H, W), (B, H, W); colours (H, W, 3) uint8), a path, or a list of these. Images
      have the size of their masks, whatever it is: where the network could not halve a side, it
      is filled up with unlabelled pixels, which are cut off again.
    - ``num_images``: images of each mask; those of one mask follow each other.
    - ``num_inference_steps``: steps of ``scheduler``.
    - ``guidance_scale``: 1 is none, 0 ignores the mask; by default 1.5, or 1 for a model that
      never saw dropped masks.
    - ``guidance_interval``: see ``SamplerSettings``.
    - ``generator``: of noise, one or one for each image, which then depends on its own alone.
    - ``seeds``: in its place, an integer for each image, as for ``generate``.
    - ``output_type``: ``pil``; ``np`` or ``pt`` for float32 of 0 to 1, (N, H, W, 3) or
      (N, 3, H, W); ``latent`` for x0 as the network sees it (of ``codec``, filled up).
    - ``return_dict``: False for a tuple instead of an output with ``.images``.
    - ``callback_on_step_end``: called with (pipe, step, timestep, {"latents": x}) after each
      step; may return {"latents": other}, or set ``pipe._interrupt``.
    - ``latents``: the noise to start from, (N, C, h, w), standard normal.
    - ``instances``: for a model with ``instance_edges``, instance numbers in the form of masks.

    Attributes:
        unet: the network; ``unet(x_BCHW, t_B, condition_BKHW).sample`` is one pass.
        scheduler: what ``pipe(mask)`` samples with. Any of Diffusers' will do:
            ``pipe.scheduler = X.from_config(pipe.scheduler.config)``.
        schedule: the forward process that the network was trained on.
        vae: the autoencoder of a model with codec ``vae``, else None; a folder has it in ``vae``.
        plain: paint by the official computation, straightforwardly (``model.reference``).
        checkpoint_sha256: of what it was loaded from, empty for one in training.
    """

    @classmethod
    def wrap(
        cls,
        bundle: ModelFile,
        unet: SemanticUNet,
        sha256: str = "",
        vae: ModelMixin | None = None,
    ) -> Self:
        """Return a pipeline around a network that already has its weights.

        ``vae``: its autoencoder; None where it has none, or to load it from where the model says.
        """
        pipe = cls(
            unet,
            make_scheduler(bundle.diffusion, "dpm++"),
            labels=bundle.labels.to_json(),
            model=bundle.model.model_dump(mode="json"),
            diffusion=bundle.diffusion.model_dump(mode="json"),
            height=bundle.height,
            width=bundle.width,
            facts=bundle.facts,
            vae=vae,
        )
        pipe.checkpoint_sha256 = sha256
        return pipe

    @classmethod
    def from_model_file(cls, bundle: ModelFile, device: str = "cpu", sha256: str = "") -> Self:
        """Return a pipeline with the bundle's own tensors as its weights (no copy on the CPU).

        Raises:
            UserError: weights that do not fit the configuration, or no such device.
        """
        return cls.wrap(bundle, load_network(bundle).to(pick_device(device)), sha256)

    @classmethod
    def from_checkpoint(cls, path: str | Path, device: str = "auto") -> Self:
        """Load ``final_model.pth``, the run folder that holds one, or a Diffusers folder.

        Raises:
            UserError: see ``load_model_file`` and ``from_pretrained``; or no such device.
        """
        path = Path(path)
        if (path / MODEL_INDEX).is_file():
            where = pick_device(device)
            with no_progress_bar():
                pipe: Self = cls.from_pretrained(path).to(where)
            pipe.checkpoint_sha256 = checkpoint_sha256(path)
            return pipe
        bundle = load_model_file(path)
        try:
            return cls.from_model_file(bundle, device, checkpoint_sha256(path))
        except UserError as error:
            raise UserError(f"{path}: {error}") from None

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Self:
        """Load a Diffusers folder, or a repository of the Hub; see Diffusers for the options.

        Raises:
            UserError: no such folder, not one of ours, or one that is damaged.
        """
        name = os.fspath(pretrained_model_name_or_path)
        check_folder(name, cls.__name__)
        for key in ("dtype", "torch_dtype"):
            if isinstance(kwargs.get(key), torch.dtype) and (Path(name) / VAE).is_dir():
                # Its hash is that of its float32 weights, and so are its computations.
                kwargs[key] = {VAE: torch.float32, "default": kwargs[key]}
        with translate_load_errors(name):
            return super().from_pretrained(name, **kwargs)  # type: ignore[no-any-return]

    @classmethod
    def download(cls, pretrained_model_name: str, **kwargs: Any) -> str:
        """Fetch a repository of the Hub and return its folder; options as ``from_pretrained``."""
        folder = fetch(pretrained_model_name, kwargs)
        check_folder(folder, cls.__name__)
        return folder

    def save_pretrained(
        self, save_directory: str | Path, *args: Any, push_to_hub: bool = False, **kwargs: Any
    ) -> None:
        """Write a Diffusers folder, with a model card where the facts suffice for one.

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
            check_publishable(self.facts)
        options, repository = split_options(kwargs), kwargs.pop("repo_id", folder.name)
        n_bytes = _n_bytes(self._plain_unet) + (0 if self.vae is None else _n_bytes(self.vae))
        require_space(folder, n_bytes, "the model")
        name = (repository,) if push_to_hub else ()
        with nullcontext(folder) if folder.exists() else atomic_folder(folder) as place:
            with translate_save_errors(str(folder)):
                super().save_pretrained(place, *args, **kwargs)
            strip_local_paths(place)
            if has_card(self.facts):
                write_card(self, place, *name)
        if push_to_hub:
            publish(self, folder, repository, options)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:
        """Publish the model with its card; options as in Diffusers.

        Raises:
            UserError: the licence of the data is unknown, before anything is sent.
        """
        check_publishable(self.facts)
        options = split_options(kwargs)
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder, **kwargs)
            write_card(self, Path(folder), repo_id)
            return publish(self, Path(folder), repo_id, options)

    def add_scores(self, report: str | Path) -> None:
        """Take the scores of a ``report.json`` of `semsynth evaluate` into the facts.

        Raises:
            UserError: it is no report, or one of another checkpoint.
        """
        scores = read_scores(report, self.checkpoint_sha256)
        self.register_to_config(facts={**self.facts, "scores": scores})

    def save_checkpoint(self, path: str | Path) -> None:
        """Write ``final_model.pth``: the pipeline but its scheduler, in one file."""
        save_model_file(Path(path), self.bundle)

    @property
    def bundle(self) -> ModelFile:
        """Everything but the scheduler, as one value; the weights are the network's own."""
        return ModelFile(
            model=self._model,
            diffusion=self._diffusion,
            labels=self._labels,
            height=self.height,
            width=self.width,
            weights=self._plain_unet.state_dict(),
            facts=self.config["facts"],
        )


def _n_bytes(network: ModelMixin) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
