"""From label ids to the network's input."""

from __future__ import annotations

import pytest
import torch
from test_unet import CLASSES, inputs, network

from semsynth.models.config import ModelConfig
from semsynth.models.sdm.condition import label_input, one_hot


@pytest.mark.parametrize(("labels", "step"), [("patch", 1), ("nearest", 4)])
def test_ids_at_the_size_of_the_network(labels: str, step: int) -> None:
    model = ModelConfig.model_validate({"labels": labels, "haar_levels": 2})
    unet = network(label_channels=CLASSES + 1, instance_edges=True)
    ids = torch.randint(-1, CLASSES, (2, 8, 16))
    edges = torch.randint(0, 2, ids.shape)
    found = label_input(unet, model, ids, edges)
    assert found.shape == (2, CLASSES + 1, 8 // step, 16 // step)
    assert torch.equal(found, one_hot(unet, ids[:, ::step, ::step], edges[:, ::step, ::step]))


def test_the_dtype_is_that_of_the_network() -> None:
    unet = network().bfloat16()
    assert one_hot(unet, torch.zeros(1, 2, 2, dtype=torch.int8)).dtype == torch.bfloat16


@torch.no_grad()
def test_edges_are_the_last_channel() -> None:
    unet = network(label_channels=CLASSES + 1, instance_edges=True)
    x, t, labels = inputs(8, 8)
    ids = labels.argmax(1)
    edges = (ids == 2).to(torch.uint8)
    hot = one_hot(unet, ids, edges)
    assert torch.equal(hot[:, -1], edges.float())
    assert torch.equal(hot[:, :-1], labels)
    assert not torch.equal(unet(x, t, hot).sample, unet(x, t, one_hot(unet, ids)).sample)
    # Unlabelled pixels may have edges; the null condition has none.
    nothing = torch.full_like(ids, CLASSES)
    assert torch.equal(one_hot(unet, nothing, edges)[:, -1], edges.float())
    assert float(one_hot(unet, nothing).abs().sum()) == 0


@torch.no_grad()
def test_unlabelled_is_all_zeros() -> None:
    unet = network()
    labels = torch.tensor([[[-1, 0], [4, 255]]])
    hot = one_hot(unet, labels)
    assert hot.shape == (1, CLASSES, 2, 2)
    assert hot.sum(1).tolist() == [[[0.0, 1.0], [1.0, 0.0]]]
    assert (float(hot[0, 0, 0, 1]), float(hot[0, 4, 1, 0])) == (1.0, 1.0)
