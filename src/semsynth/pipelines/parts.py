"""The parts of a pipeline: network, scheduler, autoencoder, and the plain values beside them."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

import torch
from diffusers import DiffusionPipeline, ModelMixin
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from semsynth.core.config import parse
from semsynth.core.errors import UserError
from semsynth.core.precision import Precision, autocast, memory_format, resolve_precision
from semsynth.data.labels import LabelSet
from semsynth.diffusion.config import DiffusionConfig
from semsynth.diffusion.schedule import Schedule
from semsynth.models.codecs.codec import Codec, open_codec
from semsynth.models.codecs.vae import wrap_vae
from semsynth.models.config import ModelConfig
from semsynth.models.sdm.compiled_norms import Compile, enable_compiled_norms
from semsynth.models.sdm.unet import SemanticUNet
from semsynth.pipelines.condition_cache import Cache
from semsynth.pipelines.formats.diffusers_folder import MODEL_INDEX
from semsynth.pipelines.formats.provenance import (
    DEFAULT_GUIDANCE,
    licence,
    trained_with_cfg_dropout,
)
from semsynth.pipelines.unsupported import UnsupportedDiffusersAPI

Wanted = Literal["auto", "no", "bf16"]


class PipelineParts(UnsupportedDiffusersAPI, DiffusionPipeline):
    """What ``SemanticDiffusionPipeline`` is made of."""

    unet: SemanticUNet
    scheduler: Any  # Diffusers' schedulers share no typed interface
    vae: ModelMixin | None

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

        Diffusers takes arguments without a default for networks, so all others have one; only
        ``facts`` may be left out, and ``vae``, which is then loaded from where the model says.

        Raises:
            UserError: a value that is missing or wrong.
        """
        super().__init__()
        if labels is None or model is None or diffusion is None or not height or not width:
            raise UserError(
                "a SemanticDiffusionPipeline needs labels, model, diffusion, height and width; "
                "load one with from_pretrained or from_checkpoint, or use from_bundle"
            )
        self._labels = LabelSet.from_json(labels)
        self._model = parse(ModelConfig, model, f"{MODEL_INDEX}: model")
        self._diffusion = parse(DiffusionConfig, diffusion, f"{MODEL_INDEX}: diffusion")
        self._codec = self._open_codec(vae)
        self.register_modules(unet=unet, scheduler=scheduler, vae=getattr(self._codec, "vae", None))
        self.register_to_config(
            labels=labels,
            model=model,
            diffusion=diffusion,
            height=height,
            width=width,
            facts=facts or {},
        )
        self.schedule = Schedule(self._diffusion)
        self.checkpoint_sha256 = ""
        self.cache: Cache = "auto"
        self.plain = False
        self._wanted: Wanted | None = "auto"
        self._compile: Compile = "auto"
        self._precision: Precision = "no"
        self._settled_on: tuple[torch.device, torch.dtype, bool] | None = None
        self._lut = self._labels.channel_lut()
        self._check_network()

    def _open_codec(self, vae: ModelMixin | None) -> Codec:
        config = self._model.vae
        if vae is None:
            return open_codec(self._model)
        if config is None:
            raise UserError(f"vae: the model works behind codec '{self._model.codec}', without one")
        return wrap_vae(vae, config, "vae")

    @property
    def codec(self) -> Codec:
        """From images to what the network sees, and back.

        Raises:
            UserError: ``vae`` was exchanged for one that the model was not trained behind.
        """
        if getattr(self._codec, "vae", None) is not self.vae:
            self._codec = self._open_codec(self.vae)
        return self._codec

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

    def _check_network(self) -> None:
        channels = self._labels.num_channels + self._model.instance_edges
        found = self._plain_unet.config
        if (found["label_channels"], found["in_channels"]) != (channels, self.codec.channels):
            raise UserError(
                f"the network has {found['label_channels']} condition and {found['in_channels']} "
                f"image channels, labels and model ask for {channels} and {self.codec.channels}"
            )

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
    def instance_edges(self) -> bool:
        """Whether the edges between objects are a part of its condition."""
        return self._model.instance_edges

    @property
    def default_guidance(self) -> float:
        """The guidance scale of ``pipe(mask)``: 1 for a model that never saw dropped masks."""
        return DEFAULT_GUIDANCE if trained_with_cfg_dropout(self.facts) else 1.0

    @property
    def facts(self) -> dict[str, Any]:
        """What is known of the training: recipe, step, data set, licence, versions."""
        return dict(self.config["facts"])

    @property
    def licence(self) -> str:
        """Licence of the data that it was trained on, ``unknown`` where nobody said."""
        return licence(self.facts)

    @property
    def recipe_name(self) -> str:
        """Name of the recipe that it was trained by."""
        return str(self.facts.get("recipe", {}).get("name", ""))

    @property
    def precision(self) -> Precision:
        """What is computed in: the fastest here, unless ``set_precision`` says otherwise.

        Decided when it is first asked for on a device; the norms' kernels are compiled, or not,
        and the weights laid out with it. A network that is not in float32 computes in its own type.
        """
        device, dtype = self._execution_device, self._plain_unet.dtype
        if self._settled_on != (device, dtype, self.plain):
            self._settled_on = (device, dtype, self.plain)
            if self._wanted is not None:
                own = self.plain or dtype != torch.float32
                self._precision = "no" if own else resolve_precision(self._wanted, device)
            enable_compiled_norms(self._plain_unet, "off" if self.plain else self._compile, device)
            if device.type != "meta" and not self._is_moving():
                self._plain_unet.to(memory_format=memory_format(self._precision))
        return self._precision

    def set_precision(self, precision: Wanted) -> Precision:
        """Compute in bfloat16 where that is faster; the weights stay as they are.

        Args:
            precision: ``no``; ``bf16``, where the device is made for it; ``auto`` (the default),
                where faster.

        Returns:
            What is used.
        """
        self._wanted, self._settled_on = precision, None
        return self.precision

    def use_precision(self, precision: Precision) -> None:
        """Compute in this precision, whatever is faster here."""
        self._wanted, self._precision, self._settled_on = None, precision, None

    def set_compile(self, wanted: Compile) -> None:
        """Compile the norms' kernels (``model.fused``); by default ``auto``, on GPUs."""
        self._compile, self._settled_on = wanted, None

    @property
    def _plain_unet(self) -> SemanticUNet:
        # torch.compile wraps a network; `encode` is only on the one inside.
        return getattr(self.unet, "_orig_mod", self.unet)  # type: ignore[return-value]

    def _is_moving(self) -> bool:
        """Return whether offloading brings the network's weights when they are needed."""
        return any(hasattr(module, "_hf_hook") for module in self._plain_unet.modules())

    def _autocast(self) -> torch.autocast:
        return autocast(self._execution_device, self.precision)
