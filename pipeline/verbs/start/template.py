"""The templates, and the files of configs/ that are made of them.

`python -m pipeline.verbs.start.template` makes those anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from string import Template

from pipeline.model.errors import UsageError, unknown

FOLDER = Path(__file__).parent / "templates"
NAMES = ("moving-average", "ndvi", "texture", "zonal", "terrain", "cells", "composite", "poster", "all-systems")
CONFIGS = {
    "moving-average": "moving-average",
    "ndvi": "ndvi-texture",
    "texture": "gabor",
    "zonal": "label-means",
    "poster": "quantize",
    "all-systems": "all-systems",
}
"""Templates that are also examples of configs/, by other names."""
SCENE = {
    "image": "  image: ../data/scene.zarr           # or a TIFF; --input image=PATH takes another",
    "labels": "  labels: ../data/segments.zarr",
    "folder": "../results",
    "nir": "b4",
    "red": "b3",
    "bands": "b4: the band at position 4",
    "one": "4",
    "colors": "[4, 3, 2]",
    "spacing": "[10, 10]",
    "spacing_note": "the pixel's height and width",
}
"""What the scene of `rasterpipe synth` fills in."""


def text_of(name: str) -> str:
    if name not in NAMES:
        raise UsageError(unknown("template", name, NAMES))
    return (FOLDER / f"{name}.yaml").read_text()


def title_of(name: str) -> str:
    return text_of(name).partition("\n")[0].removeprefix("# ")


def is_asked_for(name: str, value: str) -> bool:
    """Return whether a template has a place for a value."""
    return value in Template(text_of(name)).get_identifiers()


def fill(name: str, values: Mapping[str, str]) -> str:
    """Return a template with all its places filled in."""
    return Template(text_of(name)).substitute(values)


def example_of(name: str) -> str:
    """Return the file of configs/ that a template makes."""
    file = f"configs/{CONFIGS[name]}.yaml"
    labels = " --labels data/segments.zarr --num-labels 10000" if is_asked_for(name, "labels") else ""
    head = (
        f"#   rasterpipe synth data/scene.zarr --size 5000 5000 --bands 16{labels}\n"
        f"#   rasterpipe plan {file}    # what will happen\n"
        f"#   rasterpipe run {file}"
    )
    return fill(name, {**SCENE, "head": head, "output": f"../results/{CONFIGS[name]}.zarr"})


if __name__ == "__main__":
    for each, config in CONFIGS.items():
        Path(f"configs/{config}.yaml").write_text(example_of(each))
