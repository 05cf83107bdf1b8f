"""Exports of annotation tools, as each tool writes them, of one scene whose truth is known."""

from __future__ import annotations

import base64
import io
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from semsynth.data.labels import Array

HEIGHT, WIDTH = 48, 64
# Left, top, right, bottom, as corners between pixels; the car is drawn on the road.
ROAD, CAR = (4, 28, 60, 44), (18, 20, 34, 36)
BLOB = (40, 8, 52, 20)  # a tree, always a mask: its corner is cut


def blob() -> Array:
    """The tree, (H, W) bool."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    left, top, right, bottom = BLOB
    mask[top:bottom, left:right] = True
    mask[top : top + 4, left : left + 4] = False
    return mask


def truth(border: int = 0) -> dict[str, Array]:
    """Which pixels each class has; ``border`` 1 for tools that cover right and lower outlines."""
    names = np.full((HEIGHT, WIDTH), "background", object)
    for name, (left, top, right, bottom) in (("road", ROAD), ("car", CAR)):
        names[top : bottom + border, left : right + border] = name
    names[blob()] = "tree"
    return {name: names == name for name in ("background", "road", "car", "tree")}


def corners(box: tuple[int, int, int, int]) -> list[list[float]]:
    left, top, right, bottom = box
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def flat(box: tuple[int, int, int, int]) -> list[float]:
    return [value for point in corners(box) for value in point]


def runs(mask: Array, by: str) -> list[int]:
    """Run lengths of a mask, by columns ("F") or rows ("C"), beginning with what is off."""
    values = mask.ravel(order="F" if by == "F" else "C")
    changes = np.flatnonzero(np.diff(values.astype(int))) + 1
    counts = np.diff([0, *changes, values.size]).tolist()
    return [0, *counts] if values[0] else counts


def png(pixels: Array) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


def save_image(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")


def coco_value(names: list[str], compressed: bool = False) -> dict[str, Any]:
    images = [
        {"id": 10 + i, "file_name": name, "height": HEIGHT, "width": WIDTH}
        for i, name in enumerate(names)
    ]
    counts: Any = runs(blob(), "F")
    if compressed:
        from pycocotools import mask

        counts = mask.encode(np.asfortranarray(blob().astype(np.uint8)))["counts"].decode()
    annotations = []
    for image in images:
        for category, segmentation in (
            (7, [flat(ROAD)]),
            (90, [flat(CAR)]),
            (21, {"size": [HEIGHT, WIDTH], "counts": counts}),
        ):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": category,
                    "segmentation": segmentation,
                    "iscrowd": int(isinstance(segmentation, dict)),
                }
            )
    categories = [{"id": 7, "name": "road"}, {"id": 21, "name": "tree"}, {"id": 90, "name": "car"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco(root: Path) -> None:
    for split in ("train", "val"):
        names = [f"{split}_{i}.png" for i in range(2)]
        for i, name in enumerate(names):
            save_image(root / f"{split}2017" / name, i)
        value = coco_value(names, compressed=split == "val")
        write(root / "annotations" / f"instances_{split}2017.json", value)


def coco_roboflow(root: Path) -> None:
    for split in ("train", "valid"):
        save_image(root / split / f"{split}_jpg.rf.0a1b.jpg")
        value = coco_value([f"{split}_jpg.rf.0a1b.jpg"])
        write(root / split / "_annotations.coco.json", value)


def coco_paths(root: Path) -> None:
    """File names with folders, the same stem in two of them."""
    for city in ("a", "b"):
        save_image(root / "pics" / city / "0001.png")
    write(root / "result.json", coco_value(["images\\a\\0001.png", "images\\b\\0001.png"]))


def panoptic(root: Path) -> None:
    numbers = np.zeros((HEIGHT, WIDTH), np.int64)
    segments = {"road": 7, "car": 300, "tree": 70000}
    for name, number in segments.items():
        numbers[truth()[name]] = number
    rgb = np.stack([numbers % 256, numbers // 256 % 256, numbers // 65536], -1).astype(np.uint8)
    value = coco_value(["x.png", "y.png"])
    value["categories"] = [
        {**category, "isthing": int(category["name"] == "car"), "color": [category["id"], 1, 2]}
        for category in value["categories"]
    ]
    by_name = {category["name"]: category["id"] for category in value["categories"]}
    infos = [{"id": n, "category_id": by_name[name]} for name, n in segments.items()]
    value["annotations"] = [
        {"image_id": image["id"], "file_name": image["file_name"], "segments_info": infos}
        for image in value["images"]
    ]
    write(root / "annotations" / "panoptic_val2017.json", value)
    for name in ("x.png", "y.png"):
        save_image(root / "val2017" / name)
        path = root / "annotations" / "panoptic_val2017" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(rgb))


def cvat(root: Path) -> None:
    left, top, right, bottom = BLOB
    rle = ", ".join(map(str, runs(blob()[top:bottom, left:right], "C")))
    points = {
        name: ";".join(f"{x:.2f},{y:.2f}" for x, y in corners(box))
        for name, box in (("road", ROAD), ("car", CAR))
    }
    text = ""
    for i, subset in enumerate(("Train", "Validation")):
        save_image(root / "images" / subset / f"im {i}.png")
        text += f"""<image id="{i}" name="im {i}.png" subset="{subset}" width="{WIDTH}"
          height="{HEIGHT}"><polygon label="car" z_order="1" points="{points["car"]}"/>
          <polygon label="road" z_order="0" points="{points["road"]}"><attribute name="wet">no
          </attribute></polygon><mask label="tree" rle="{rle}" left="{left}" top="{top}"
          width="{right - left}" height="{bottom - top}" z_order="2"/>
          <box label="car" xtl="1" ytl="1" xbr="5" ybr="5" z_order="3"/></image>"""
    labels = "".join(
        f"<label><name>{name}</name><color>{color}</color></label>"
        for name, color in (("road", "#804080"), ("car", "#00008e"), ("tree", "#6b8e23"))
    )
    write(
        root / "annotations.xml",
        f'<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta><task>'
        f"<labels>{labels}</labels></task></meta>{text}</annotations>",
    )


def labelme(root: Path) -> None:
    left, top, right, bottom = BLOB
    mask = base64.b64encode(png(blob()[top:bottom, left:right])).decode()
    for i in range(3):
        save_image(root / f"im{i}.jpg", i)
        shapes = [
            {"label": "road", "points": corners(ROAD), "shape_type": "polygon", "group_id": None},
            {"label": "car", "points": [CAR[2:], CAR[:2]], "shape_type": "rectangle"},
            {
                "label": "tree",
                "points": [[left, top], [right - 1, bottom - 1]],
                "shape_type": "mask",
                "mask": mask,
            },
        ]
        value = {
            "version": "5.4.1",
            "flags": {},
            "shapes": shapes,
            "imagePath": f"..\\x\\im{i}.jpg",
            "imageData": None,
            "imageHeight": HEIGHT,
            "imageWidth": WIDTH,
        }
        write(root / f"im{i}.json", value)


def pack(values: Array) -> list[int]:
    """Encode bytes as Label Studio does (thi.ng/rle-pack): runs, and values one by one."""
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    changes = np.flatnonzero(np.diff(values.astype(int))) + 1
    for part in np.split(values, changes):
        rest = part
        while len(rest):
            piece, rest = rest[:65536], rest[65536:]
            which, size = next((k, s) for k, s in enumerate((3, 4, 8, 16)) if len(piece) <= 1 << s)
            repeated = len(piece) > 1
            bits += f"{int(repeated)}{which:02b}{len(piece) - 1:0{size}b}"
            bits += "".join(f"{v:08b}" for v in (piece[:1] if repeated else piece))
    return list(np.packbits([int(bit) for bit in bits]).tobytes())


def labelstudio(root: Path) -> None:
    rgba = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    rgba[blob()] = (7, 8, 9, 255)
    tasks = []
    for i in range(2):
        save_image(root / "img" / f"shot {i}.png", i)
        common = {
            "original_width": WIDTH,
            "original_height": HEIGHT,
            "image_rotation": 0,
            "from_name": "tag",
            "to_name": "image",
        }
        percent = np.array([100 / WIDTH, 100 / HEIGHT])
        result: list[dict[str, Any]] = [
            {
                **common,
                "type": "polygonlabels",
                "value": {
                    "points": (np.array(corners(box)) * percent).tolist(),
                    "closed": True,
                    "polygonlabels": [name],
                },
            }
            for name, box in (("road", ROAD), ("car", CAR))
        ]
        brush = {"format": "rle", "rle": pack(rgba.ravel()), "brushlabels": ["tree"]}
        result.append({**common, "type": "brushlabels", "value": brush})
        skipped = {"id": 90 + i, "was_cancelled": True, "result": []}
        tasks.append(
            {
                "id": i,
                "data": {"image": f"/data/upload/3/0a1b2c3{i}-shot%20{i}.png"},
                "annotations": [skipped, {"id": 50 + i, "was_cancelled": False, "result": result}],
            }
        )
    write(root / "project.json", tasks)


def yolo(root: Path) -> None:
    """With the names and paths of data.yaml; the tree is a polygon of its own pixels' outline."""
    shape = np.array([1 / WIDTH, 1 / HEIGHT])
    left, top, right, bottom = BLOB
    outline = [
        (left + 4, top),
        (right - 1, top),
        (right - 1, bottom - 1),
        (left, bottom - 1),
        (left, top + 4),
        (left + 4, top + 4),
    ]
    for split in ("train", "val"):
        save_image(root / "images" / split / f"{split}.png")
        lines = [
            f"{i} " + " ".join(f"{v:.6f}" for v in (np.array(points) * shape + 1e-6).ravel())
            for i, points in ((2, corners(CAR)), (0, corners(ROAD)), (1, outline))
        ]
        write(root / "labels" / split / f"{split}.txt", "\n".join(lines))
    write(
        root / "data.yaml",
        "path: .\ntrain: images/train\nval: images/val\nnames: {0: road, 1: tree, 2: car}\n",
    )


def segments(root: Path) -> None:
    numbers = sum(k * truth()[name] for k, name in enumerate(("road", "car", "tree"), 1))
    rgba = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    rgba[..., 0], rgba[..., 3] = numbers, 255
    annotations = [{"id": k, "category_id": c} for k, c in ((1, 4), (2, 5), (3, 9))]
    names = {4: "road", 5: "car", 9: "tree"}
    categories = [{"id": i, "name": name, "color": [i, i, i]} for i, name in names.items()]
    samples = []
    for i in range(2):
        save_image(root / f"s{i}.png", i)
        (root / f"s{i}_label_ground-truth.png").write_bytes(png(rgba))
        bitmap = {"url": f"https://example.org/assets/{i}.png"}
        label = {
            "label_status": "REVIEWED",
            "attributes": {"annotations": annotations, "segmentation_bitmap": bitmap},
        }
        samples.append(
            {
                "name": f"s{i}.png",
                "attributes": {"image": {"url": f"a/{i}.png"}},
                "labels": {"ground-truth": label},
            }
        )
    attributes = {"format_version": "0.1", "categories": categories}
    data_set = {"name": "x", "task_attributes": attributes, "samples": samples}
    write(root / "release.json", {"name": "v1", "dataset": data_set})


def supervisely(root: Path) -> None:
    left, top, right, bottom = BLOB
    rgba = np.zeros((bottom - top, right - left, 4), np.uint8)
    rgba[blob()[top:bottom, left:right]] = 255
    data = base64.b64encode(zlib.compress(png(rgba))).decode()
    classes = [
        {"title": name, "shape": "any", "color": f"#0000{k:02x}"}
        for k, name in enumerate(("road", "car", "tree"), 1)
    ]
    write(root / "meta.json", {"classes": classes, "tags": []})
    for split in ("train", "val"):
        save_image(root / split / "img" / f"{split}.png")
        objects: list[dict[str, Any]] = [
            {
                "classTitle": name,
                "geometryType": "polygon",
                "points": {"exterior": corners(box), "interior": []},
            }
            for name, box in (("road", ROAD), ("car", CAR))
        ]
        bitmap = {"origin": [left, top], "data": data}
        objects.append({"classTitle": "tree", "geometryType": "bitmap", "bitmap": bitmap})
        size = {"height": HEIGHT, "width": WIDTH}
        value = {"description": "", "tags": [], "size": size, "objects": objects}
        write(root / split / "ann" / f"{split}.png.json", value)


def datumaro(root: Path) -> None:
    labels = [{"name": name, "parent": "", "attributes": []} for name in ("road", "car", "tree")]
    for split in ("train", "val"):
        save_image(root / "images" / split / "a b.png")
        rle = {
            "counts": coco_value(["x"], True)["annotations"][2]["segmentation"]["counts"],
            "size": [HEIGHT, WIDTH],
        }
        annotations = [
            {"id": 1, "type": "polygon", "label_id": 1, "points": flat(CAR), "z_order": 1},
            {"id": 2, "type": "polygon", "label_id": 0, "points": flat(ROAD), "z_order": 0},
            {"id": 3, "type": "mask", "label_id": 2, "rle": rle, "z_order": 0},
        ]
        image = {"path": "a b.png", "size": [HEIGHT, WIDTH]}
        item = {"id": "a b", "annotations": annotations, "image": image}
        write(
            root / "annotations" / f"{split}.json",
            {"info": {}, "categories": {"label": {"labels": labels}}, "items": [item]},
        )
