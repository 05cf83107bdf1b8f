"""An image of the studio as lines of Python that make it again, bit for bit."""

from __future__ import annotations

import base64
import io
import textwrap
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from semsynth.app.results import Result
from semsynth.core.version import __version__
from semsynth.data.image_files.channels import encode_image
from semsynth.data.labels import Array
from semsynth.diffusion.config import SamplerSettings
from semsynth.pipelines.formats.pretrained import is_model, pretrained_names

if TYPE_CHECKING:
    from semsynth.app.models import StudioModel
    from semsynth.pipelines.from_image import FromImage

# Characters of a line of encoded bytes.
_WIDTH = 88


def python_lines(result: Result, model: StudioModel) -> str:
    """Return a program that generates an image again, and saves it as ``image.png`` (or .npy).

    Everything but the model is in it. It computes the same bytes with the same version, on the
    same kind of device.

    Args:
        result: the image.
        model: that made it.
    """
    synthesizer = model.synthesizer
    imports = ["base64", "io"]
    names = ["SamplerSettings", "SemanticDiffusionPipeline"]
    body = [f"mask = {_array(result.mask_HW)}  # ids of classes, (height, width)"]
    arguments = ["mask[None]", f"[{result.seed}]", "settings"]
    if result.edges_HW is not None:
        body.append(f"edges = {_array(result.edges_HW)}  # borders of objects")
        arguments.append("edges[None]")
    if result.real is not None:
        names.insert(0, "FromImage")
        body += _real(result.real)
        arguments.append("real=real")
    if result.variation is not None:
        arguments.append(f"variation={result.variation!r}")
    body += _pixels(result)
    if any("zlib" in line for line in body):
        imports.append("zlib")
    shown = synthesizer.pixels.bits == 8 and synthesizer.pixels.channels in (1, 3)
    save = (
        "Image.fromarray(image.squeeze()).save('image.png')" if shown else "np.save('image', image)"
    )
    lines = [
        f"# semsynth {__version__}, model {model.name}, sha256 {synthesizer.checkpoint_sha256}",
        *(f"import {name}" for name in imports),
        "",
        "import numpy as np",
        *(["from PIL import Image"] if shown or _has_png(body) else []),
        f"from semsynth import {', '.join(names)}",
        "",
        *body,
        f"model = {_where(model.path)!r}",
        f"pipe = SemanticDiffusionPipeline.from_checkpoint(model, {str(synthesizer.device)!r})",
        *_allowed(result, model),
        f"settings = {_settings(result.settings)}",
        f"image = pipe.synthesizer.generate({', '.join(arguments)})[0]",
        *_paste(result),
        save,
    ]
    return "\n".join(lines) + "\n"


def _pixels(result: Result) -> list[str]:
    """Return lines that make the objects that are pasted, where there are some."""
    if result.pasted is None:
        return []
    where = result.pasted.where_HW
    pixels = np.where(where[..., None], result.pasted.image_HWC, 0).astype(result.image_HWC.dtype)
    return [
        f"pixels = {_array(pixels)}  # of the objects",
        f"where = {_array(where.astype(np.uint8))} > 0",
    ]


def _paste(result: Result) -> list[str]:
    """Return the line that pastes objects, where there are some."""
    if result.pasted is None:
        return []
    return ["image[where] = pixels.reshape(image.shape)[where]"]


def _allowed(result: Result, model: StudioModel) -> list[str]:
    """Return the line without which unlabelled pixels are refused, where it is needed."""
    extra = model.labels.ignore_id is None and model.mask_labels.ignore_id is not None
    needed = extra and bool((result.mask_HW == model.unlabelled).any())
    return ["pipe.synthesizer.allow_unlabelled()"] if needed else []


def _has_png(lines: list[str]) -> bool:
    return any("Image.open" in line for line in lines)


def _where(path: Path) -> str:
    """Return what loads a model from any folder: the name of one of the package, else its path."""
    given = str(path)
    of_package = given in pretrained_names() and not (path.is_file() or is_model(path))
    return given if of_package else str(path.absolute())


def _settings(settings: SamplerSettings) -> str:
    return (
        f"SamplerSettings({settings.sampler!r}, {settings.steps}, {settings.guidance_scale!r}, "
        f"{settings.guidance_interval!r})"
    )


def _real(real: FromImage) -> list[str]:
    """Return lines that make what is started from."""
    lines = [
        f"start = {_array(real.images_BHWC[0])}",
        f"start = start.reshape({real.images_BHWC.shape})",
    ]
    parts = ["start", repr(real.strength)]
    if real.regions_BHW is not None:
        lines.append(f"region = {_array(real.regions_BHW[0].astype(np.uint8))}[None] > 0")
        parts.append("region")
    return [*lines, f"real = FromImage({', '.join(parts)})"]


def _array(values: Array) -> str:
    """Return an expression whose value is an array: as a PNG where that holds it, else as NumPy's.

    A last axis of one channel is lost.
    """
    flat = values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
    if flat.ndim == 2 or (flat.shape[2] == 3 and flat.dtype == np.uint8):
        png = _text(encode_image(flat, "png"))
        return f"np.array(Image.open(io.BytesIO(base64.b64decode({png}))))"
    file = io.BytesIO()
    np.save(file, flat)
    packed = zlib.compress(file.getvalue(), 9)
    return f"np.load(io.BytesIO(zlib.decompress(base64.b64decode({_text(packed)}))))"


def _text(data: bytes) -> str:
    text = base64.b64encode(data).decode("ascii")
    if len(text) <= _WIDTH:
        return repr(text)
    return "\n".join(["(", *(f"    {part!r}" for part in textwrap.wrap(text, _WIDTH)), ")"])
