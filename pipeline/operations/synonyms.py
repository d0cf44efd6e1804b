"""The neighbours' words for operations, and ours: of GDAL, GRASS, scipy, scikit-image, OpenCV, Pillow, ArcGIS, QGIS."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pipeline.model.errors import unknown
from pipeline.operations.spectral_index import INDICES

Entry = TypeVar("Entry")

SYNONYMS: Mapping[str, str] = {
    "window": "focal, focal statistics, neighbors, r.neighbors, neighborhood, moving window, rolling",
    "window, size: 3, statistics: [mean]": "uniform_filter, moving_average, box blur, box filter, blur, focal mean",
    "window, size: 3, statistics: [median]": "median filter, medfilt, median blur, medfilt2d",
    "window, size: 3, statistics: [min]": "minimum_filter, erode, erosion, grey_erosion",
    "window, size: 3, statistics: [max]": "maximum_filter, dilate, dilation, grey_dilation",
    "window, size: 3, statistics: [range]": "morphological_gradient",
    "window, size: 3, statistics: [std]": "local std, stdev filter",
    "window, size: 3, percentiles: [90]": "percentile_filter, rank filter",
    "convolve": "convolve2d, correlate, correlate2d, filter2d, convolution",
    "convolve, kernel: [[0, 1, 0], [1, -4, 1], [0, 1, 0]]": "laplace filter",
    "convolve, kernel: [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], correlate: true": "sobel",
    "gaussian": "gaussian_filter, gaussian_blur, gauss",
    "gradient": "derivative, np.gradient",
    "hessian": "hessian_matrix, second derivative",
    "hessian, outputs: [laplacian]": "laplace, laplacian",
    "gabor": "gabor_filter, gabor_kernel",
    "terrain": "gdaldem, dem, r.slope.aspect",
    "terrain, outputs: [slope]": "slope, steepness",
    "terrain, outputs: [aspect]": "aspect, exposition",
    "terrain, outputs: [hillshade]": "hillshade, shaded relief, r.relief, shading",
    "terrain, outputs: [roughness]": "roughness",
    "terrain, outputs: [tpi]": "tpi, topographic position index",
    "terrain, outputs: [tri]": "tri, ruggedness, terrain ruggedness index",
    "relief": "color relief, colormap, hypsometric tints, apply_cmap",
    "label_stats": "zonal, zonal stats, zonal statistics, rasterstats, exactextract, regionprops, r.univar",
    "label_stats, labels: labels, geometry: [area, perimeter, centroid]": "regionprops_table, shape measurements",
    "components": "label, bwlabel, connected components, r.clump, clump, region group, objects",
    "components, min_size: 10, removed: largest_neighbour": "sieve, gdal_sieve, r.reclass.area",
    "components, min_size: 10": "remove_small_objects, area_opening",
    "components, fill_holes: 10": "binary_fill_holes, remove_small_holes, fill_holes",
    "threshold": "otsu, threshold_otsu, binarize",
    "threshold, method: triangle": "threshold_triangle",
    "threshold, method: li": "threshold_li",
    "threshold, value: 100": "binary threshold",
    "distance": "distance_transform_edt, distance_transform, proximity, gdal_proximity, r.grow.distance",
    "calc": "raster calculator, map algebra, gdal_calc, r.mapcalc, numexpr, band math, expression",
    'calc, expression: "where(input < 10, 1, 2)"': "reclassify, reclass, r.recode, r.reclass, remap",
    'calc, expression: "coalesce(input, 0)"': "fillna, fill_nodata_value, nan_to_num",
    "mask": "where, cloud mask, set null",
    "cast": "astype, convert dtype, rescale, rescale_intensity, scale, translate",
    "select": "band select, subset bands, choose bands, reorder bands",
    "composite": "temporal_median, median_composite, nanmedian, nanmean, resample, reduce, mosaic_composite, "
    "quality_mosaic, z_project, projection, cell statistics, local statistics, r.series",
    "palette": "kmeans, median_cut, colour palette",
    "quantize": "classify by palette, rgb2pct, posterize, color quantization",
    "index": "spectral index, vegetation index, i.vi",
    **{f"index, indices: [{name}]": name for name in INDICES},
}
"""Operation, and what else its step says -> words for it."""
ELSEWHERE: Mapping[str, str] = {
    "rasterize": "polygons are rasters where they are inputs: {vector: FILE, value: FIELD or coverage}",
    "polygonize, vectorize, raster to polygon, gdal_polygonize, r.to.vect": (
        "the outlines of a kept raster of labels: {output: {polygons: FILE.gpkg}}"
    ),
    "crop, clip, subset": "a part of the raster is the file's `region`",
    "mosaic, merge, gdal_merge": "many files are one raster where they are inputs: {mosaic: [FILE, ...]}",
    "stack, concat": "many files are bands of one raster where they are inputs: {stack: {NAME: FILE, ...}}",
    "overviews, pyramid": "levels of a kept raster: {output: {pyramid: auto}}",
}
"""Words -> where that is which is no operation here."""


@dataclass(frozen=True, slots=True)
class Meant:
    """An operation of ours, and what else a step says for a word."""

    op: str
    fields: str

    def line(self, example: str) -> str:
        """Return the step to paste."""
        return f"{{name: {self.op}, op: {self.op}, input: image, {self.fields}}}" if self.fields else example


def _plain(word: str) -> str:
    return re.sub(r"[^a-z0-9]", "", word.casefold())


_WORDS = {
    _plain(word): Meant(*key.partition(", ")[::2]) for key, words in SYNONYMS.items() for word in words.split(",")
}
_ELSEWHERE = {_plain(word): text for words, text in ELSEWHERE.items() for word in words.split(",")}


def meant(word: str, operations: Container[str]) -> Meant | None:
    """Return the operation that a word of others stands for: `uniform_filter`, `BoxBlur`, `scipy.ndimage.label`."""
    found = _look_up(_WORDS, word)
    return found if found and found.op in operations else None


def elsewhere(word: str) -> str | None:
    """Return where that is which is no operation here."""
    return _look_up(_ELSEWHERE, word)


def _look_up(table: Mapping[str, Entry], word: str) -> Entry | None:
    return table.get(_plain(word)) or table.get(_plain(word.rpartition(".")[2]))


def unknown_operation(name: str, operations: Sequence[str]) -> str:
    """Return the message for an operation that there is not, with ours that is meant.

    Examples
    --------
    >>> unknown_operation("focal", ["calc", "window"])
    "unknown operation 'focal'; here it is called 'window'"
    >>> unknown_operation("slope", ["terrain"])
    "unknown operation 'slope'; here it is called 'terrain', with `outputs: [slope]`"
    """
    word = name if len(name) <= 60 else name[:57] + "..."
    if text := elsewhere(name):
        return f"unknown operation '{word}'; {text}"
    if found := meant(name, operations):
        return f"unknown operation '{word}'; here it is called '{found.op}'" + (
            f", with `{found.fields}`" if found.fields else ""
        )
    return unknown("operation", word, operations)
