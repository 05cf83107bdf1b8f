"""Exports of VGG Image Annotator, QuPath and V7, of the scene of ``annotation_exports``."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from annotation_exports import (
    BLOB,
    CAR,
    HEIGHT,
    ROAD,
    WIDTH,
    blob,
    corners,
    save_image,
    truth,
    write,
)


def via_value(name: str) -> dict[str, Any]:
    """The regions of an image: its road is a rectangle, the others are polygons."""
    left, top, right, bottom = ROAD
    road = {"name": "rect", "x": left, "y": top, "width": right - left, "height": bottom - top}
    left, top, right, bottom = BLOB
    tree = [(left + 4, top), (right, top), (right, bottom), (left, bottom), (left, top + 4)]
    regions = [(road, "road")]
    for outline, label in ((corners(CAR), "car"), ([*tree, (left + 4, top + 4)], "tree")):
        across, down = (list(values) for values in zip(*outline, strict=True))
        regions.append(({"name": "polygon", "all_points_x": across, "all_points_y": down}, label))
    found = [{"shape_attributes": s, "region_attributes": {"class": n}} for s, n in regions]
    return {"filename": name, "size": 1234, "regions": found, "file_attributes": {}}


def via(root: Path) -> None:
    """Exports of annotations, as the balloons of Mask R-CNN have them."""
    for split in ("train", "val"):
        save_image(root / split / "a b.png")
        write(root / split / "via_region_data.json", {"a b.png1234": via_value("a b.png")})


def via_project(root: Path) -> None:
    """Projects, one of them with regions by number and a class by checkboxes."""
    for split in ("train", "val"):
        save_image(root / split / "images" / "a b.png")
        value = via_value("a b.png")
        if split == "train":
            value["regions"] = {str(i): region for i, region in enumerate(value["regions"])}
            for region in value["regions"].values():
                name = region["region_attributes"]["class"]
                region["region_attributes"]["class"] = {name: True, "sky": False}
        project = {"_via_settings": {}, "_via_img_metadata": {"a b.png1234": value}}
        write(root / f"{split}.json", {**project, "_via_attributes": {"region": {}}})


def qupath_features(**classes: str) -> list[dict[str, Any]]:
    """Objects: the road with a hole that the car fills, and the tree as two rectangles."""
    left, top, right, bottom = BLOB
    parts = [(left + 4, top, right, bottom), (left, top + 4, left + 4, bottom)]
    rings = {
        "road": ("Polygon", [_ring(ROAD), _ring(CAR)]),
        "car": ("Polygon", [_ring(CAR)]),
        "tree": ("MultiPolygon", [[_ring(part)] for part in parts]),
    }
    return [
        {
            "type": "Feature",
            "id": f"{number}",
            "geometry": {"type": kind, "coordinates": coordinates},
            "properties": {
                "objectType": "annotation",
                **(
                    {"classification": {"name": classes[name], "color": [200, number, 0]}}
                    if name in classes
                    else {}
                ),
            },
        }
        for number, (name, (kind, coordinates)) in enumerate(rings.items())
    ]


def _ring(box: tuple[int, int, int, int]) -> list[list[float]]:
    return [*corners(box), corners(box)[0]]


def qupath(root: Path) -> None:
    """A feature collection of one image, a plain list (QuPath 0.2) of the other."""
    features = qupath_features(road="road", car="car", tree="tree")
    for split in ("train", "val"):
        save_image(root / split / "a b.tif")
    write(root / "train" / "a b.geojson", {"type": "FeatureCollection", "features": features})
    write(root / "val" / "a b.json", features)


def darwin_polygon(name: str, *boxes: tuple[int, int, int, int]) -> dict[str, Any]:
    """A polygon of V7 with a path for each box; its bounding box is there, too."""
    left, top, right, bottom = boxes[0]
    return {
        "id": f"polygon-{name}",
        "name": name,
        "slot_names": ["0"],
        "properties": [],
        "polygon": {"paths": [[{"x": x, "y": y} for x, y in corners(box)] for box in boxes]},
        "bounding_box": {"x": left, "y": top, "w": right - left, "h": bottom - top},
    }


def darwin_masks(**masks: np.ndarray) -> list[dict[str, Any]]:
    """Brush masks of V7, by class: an annotation for each, and the layer with the pixels."""
    values = np.zeros(next(iter(masks.values())).shape, int)
    for number, mask in enumerate(masks.values(), 1):
        values[mask] = number
    flat = values.ravel()
    starts = [0, *(np.flatnonzero(np.diff(flat)) + 1).tolist(), flat.size]
    pairs = [(int(flat[a]), b - a) for a, b in pairwise(starts)]
    found = [
        {"id": f"mask-{name}", "name": name, "mask": {"sparse_rle": None}, "slot_names": ["0"]}
        for name in masks
    ]
    layer = {
        "dense_rle": [number for pair in pairs for number in pair],
        "mask_annotation_ids_mapping": {f"mask-{name}": n for n, name in enumerate(masks, 1)},
        "total_pixels": flat.size,
    }
    own = {"id": "layer", "name": "__raster_layer__", "slot_names": ["0"], "raster_layer": layer}
    return [*found, own]


def darwin_value(name: str, annotations: list[dict[str, Any]], path: str = "/") -> dict[str, Any]:
    """A file of V7's export of an image."""
    slot = {
        "type": "image",
        "slot_name": "0",
        "width": WIDTH,
        "height": HEIGHT,
        "source_files": [{"file_name": name, "url": f"https://darwin.v7labs.com/{name}"}],
    }
    item = {"name": name, "path": path, "source_info": {"item_id": "1"}, "slots": [slot]}
    return {"version": "2.0", "item": item, "annotations": annotations}


def darwin(root: Path) -> None:
    """Polygons with a hole and a brush mask of one image, brush masks alone of the other."""
    for split in ("train", "val"):
        save_image(root / split / "images" / "a b.png")
    shapes = [darwin_polygon("road", ROAD, CAR), darwin_polygon("car", CAR)]
    tree = {"tree": blob()}
    mixed = darwin_value("a b.png", [*shapes, *darwin_masks(**tree)], "/train")
    write(root / "train" / "annotations" / "a b.json", mixed)
    masks = {name: covered for name, covered in truth().items() if name != "background"}
    write(root / "val" / "annotations" / "a b.json", darwin_value("a b.png", darwin_masks(**masks)))
