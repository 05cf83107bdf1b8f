"""Exports of VGG Image Annotator and QuPath, of the scene of ``annotation_exports``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from annotation_exports import BLOB, CAR, ROAD, corners, save_image, write


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
