from __future__ import annotations

from pathlib import Path

import pytest
import torch

from semsynth.core.errors import UserError
from semsynth.core.safe_load import load_state_dict
from semsynth.evaluation.metrics.inception import BasicConv2d, InceptionV3, _average
from semsynth.evaluation.metrics.lpips import Lpips

CHANNELS = ((0, 64, 3, 11), (3, 192, 64, 5), (6, 384, 192, 3), (8, 256, 384, 3), (10, 256, 256, 3))


@pytest.fixture(scope="module")
def inception() -> InceptionV3:
    torch.manual_seed(0)
    return InceptionV3().eval()


def test_inception_has_the_published_sizes(inception: InceptionV3) -> None:
    # torchvision's inception_v3 without the auxiliary head has 23,834,568 parameters, of which
    # its 1000-way classifier has 2,049,000.
    body = sum(p.numel() for name, p in inception.named_parameters() if not name.startswith("fc."))
    assert body == 23_834_568 - 2_049_000
    assert inception.fc.weight.shape == (1008, 2048)
    assert sum(isinstance(module, BasicConv2d) for module in inception.modules()) == 94


def test_inception_has_the_names_of_the_published_file(inception: InceptionV3) -> None:
    names = {k for k in inception.state_dict() if not k.endswith("num_batches_tracked")}
    assert len(names) == 94 * 5 + 2
    assert names >= {
        "Conv2d_1a_3x3.conv.weight",
        "Conv2d_4a_3x3.bn.running_var",
        "Mixed_5b.branch5x5_2.conv.weight",
        "Mixed_6a.branch3x3dbl_3.bn.bias",
        "Mixed_6e.branch7x7dbl_5.conv.weight",
        "Mixed_7a.branch7x7x3_4.bn.weight",
        "Mixed_7c.branch3x3dbl_3b.conv.weight",
        "fc.bias",
    }


def test_inception_returns_2048_features_for_any_size(inception: InceptionV3) -> None:
    with torch.inference_mode():
        features = inception(torch.rand(1, 3, 40, 64))
    assert features.shape == (1, 2048)


def test_average_pool_does_not_count_the_padding() -> None:
    assert torch.equal(_average(torch.ones(1, 1, 4, 4)), torch.ones(1, 1, 4, 4))


def test_inception_reads_the_published_format_and_refuses_others(
    inception: InceptionV3, tmp_path: Path
) -> None:
    state = inception.state_dict()
    old = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "weights.pth")
    loaded = InceptionV3.from_file(tmp_path / "weights.pth")
    assert torch.equal(
        loaded.Mixed_7c.branch1x1.conv.weight, state["Mixed_7c.branch1x1.conv.weight"]
    )
    del old["fc.bias"]
    torch.save(old, tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"not the Inception-v3 of FID \(fc.bias\)"):
        InceptionV3.from_file(tmp_path / "weights.pth")


def alexnet(seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights with torchvision's names, the classifier included."""
    g = torch.Generator().manual_seed(seed)
    state = {"classifier.6.bias": torch.zeros(1000)}
    for number, out, channels, kernel in CHANNELS:
        shape = (out, channels, kernel, kernel)
        scale = (2 / (channels * kernel**2)) ** 0.5
        state[f"features.{number}.weight"] = torch.randn(shape, generator=g) * scale
        state[f"features.{number}.bias"] = torch.randn(out, generator=g) * 0.1
    return state


def heads() -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    widths = [out for _, out, _, _ in CHANNELS]
    return {
        f"lin{i}.model.1.weight": torch.rand(1, c, 1, 1, generator=g) for i, c in enumerate(widths)
    }


def test_lpips_is_a_distance() -> None:
    lpips, g = Lpips(alexnet(), heads()), torch.Generator().manual_seed(2)
    x, y = (torch.rand(3, 3, 64, 48, generator=g) for _ in range(2))
    with torch.inference_mode():
        assert torch.equal(lpips(x, x), torch.zeros(3))
        assert (lpips(x, y) > 0).all()
        torch.testing.assert_close(lpips(x, y), lpips(y, x))
        near = lpips(x, (x + 0.02 * y).clamp(0, 1))
        assert (near < lpips(x, y)).all()
        torch.testing.assert_close(lpips(x, y)[1:2], lpips(x[1:2], y[1:2]))


def test_lpips_weighs_unit_features_by_its_heads() -> None:
    """With heads of ones each level adds the mean squared distance of unit vectors."""
    ones = {name: torch.ones_like(value) for name, value in heads().items()}
    lpips = Lpips(alexnet(), ones)
    x, y = torch.rand(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).unbind()
    with torch.inference_mode():
        levels = [lpips.embed(x), lpips.embed(y)]
        expected = sum(2 - 2 * (a * b).sum(1).mean() for a, b in zip(*levels, strict=True))
        assert lpips(x, y).item() == pytest.approx(float(expected), rel=1e-3)


def test_lpips_reads_the_published_heads(shared: Path) -> None:
    path = shared / "weights" / "lpips_heads" / "alex.pth"
    if not path.exists():
        pytest.skip("needs the LPIPS heads in ../shared/weights")
    lpips = Lpips(alexnet(), load_state_dict(path))
    assert all((head >= 0).all() and head.abs().sum() > 0 for head in lpips.heads)


def test_lpips_refuses_other_weights() -> None:
    with pytest.raises(UserError, match="LPIPS"):
        Lpips(alexnet(), {})
    wrong = alexnet() | {"features.0.weight": torch.zeros(64, 3, 3, 3)}
    with pytest.raises(UserError, match="LPIPS"):
        Lpips(wrong, heads())


@pytest.mark.parametrize("name", ["folder", "empty", "byte", "text", "short", "code"])
def test_damaged_files_of_public_weights(damaged: Path, name: str) -> None:
    with pytest.raises(UserError, match=name):
        InceptionV3.from_file(damaged / name)
    with pytest.raises(UserError, match=name):
        Lpips.from_files(damaged / name, damaged / name)
