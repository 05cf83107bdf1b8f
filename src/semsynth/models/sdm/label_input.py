"""From label ids to the network's input: the one place where condition channels become a map.

Shape suffixes: B batch, K condition channels (one per class), H height, W width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from semsynth.models.config import ModelConfig

if TYPE_CHECKING:
    from semsynth.models.sdm.unet import SemanticUNet


def label_input(
    unet: SemanticUNet,
    model: ModelConfig,
    channels_BHW: Tensor,
    edges_BHW: Tensor | None = None,
) -> Tensor:
    """Return the label map that the network takes, (B, K, h, w) in its dtype.

    With ``model.labels: patch`` it has the size of the image (h = H, w = W); with ``nearest`` each
    latent pixel gets the label of its top left image pixel (h = H / downscale).

    Args:
        unet: for the number of classes and the dtype.
        model: for how labels are given to a latent that is smaller than the image.
        channels_BHW: condition channels of image pixels, integers on any device; those outside the
            classes (unlabelled: -1 or 255) become all zeros.
        edges_BHW: 1 at the borders of instances, for a model with ``instance_edges`` (None: no
            borders).
    """
    if model.labels == "nearest" and model.downscale > 1:
        step = model.downscale
        channels_BHW = channels_BHW[:, ::step, ::step]
        edges_BHW = None if edges_BHW is None else edges_BHW[:, ::step, ::step]
    return one_hot(unet, channels_BHW, edges_BHW)


def one_hot(unet: SemanticUNet, channels_BHW: Tensor, edges_BHW: Tensor | None = None) -> Tensor:
    """Return a channel per class, and the edges as the last one; the official code's ``y``.

    Arguments and result are those of ``label_input``, at the size that the network takes.
    """
    classes = torch.arange(unet.label_channels - unet.instance_edges, device=channels_BHW.device)
    # Not F.one_hot, which takes eight bytes per number.
    hot = (channels_BHW[..., None] == classes).permute(0, 3, 1, 2).to(unet.dtype)
    if not unet.instance_edges:
        return hot
    edges = torch.zeros_like(hot[:, :1]) if edges_BHW is None else edges_BHW[:, None].to(hot)
    return torch.cat([hot, edges], dim=1)
