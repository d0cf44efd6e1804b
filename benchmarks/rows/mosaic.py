"""400 tiles read as one raster, to a store: against GDAL's VRT of the same tiles, read by rasterio in windows.

Both sides write the same chunks by the same codecs with zarrs, and neither waits for the disk.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import rasterio
import zarr
from rasterio.windows import Window
from zarr.codecs import BloscCodec

from benchmarks.child import in_own_process
from benchmarks.rounds import Measured, Row
from pipeline import api
from pipeline.storage.zarr.document import CODECS
from pipeline.storage.zarr.reader import configure

TILES, BANDS, CHUNK, STEP, THREADS = 20, 4, 512, 1024, 2
VRT = """<VRTDataset rasterXSize="{side}" rasterYSize="{side}"><SRS>EPSG:32633</SRS>
<GeoTransform>500000, 10, 0, 6000000, 0, -10</GeoTransform>
{bands}</VRTDataset>"""
BAND = '<VRTRasterBand dataType="UInt16" band="{band}">{sources}</VRTRasterBand>\n'
SOURCE = (
    '<SimpleSource><SourceFilename relativeToVRT="1">{name}</SourceFilename><SourceBand>{band}</SourceBand>'
    '<SourceProperties RasterXSize="{tile}" RasterYSize="{tile}" DataType="UInt16" BlockXSize="{tile}"'
    ' BlockYSize="64"/>'
    '<SrcRect xOff="0" yOff="0" xSize="{tile}" ySize="{tile}"/>'
    '<DstRect xOff="{left}" yOff="{top}" xSize="{tile}" ySize="{tile}"/></SimpleSource>\n'
)


def make(folder: Path, side: int) -> None:
    """Make the tiles (Deflate, strips of 64 rows), and a VRT of them."""
    folder.mkdir(parents=True)
    tile, rng = side // TILES, np.random.default_rng(3)
    form = {"height": tile, "width": tile, "count": BANDS, "dtype": "uint16", "crs": "EPSG:32633", "driver": "GTiff"}
    places = [(row * tile, column * tile) for row in range(TILES) for column in range(TILES)]
    for top, left in places:
        transform = rasterio.Affine(10, 0, 5e5 + 10 * left, 0, -10, 6e6 - 10 * top)
        options = {"compress": "deflate", "predictor": 2, "interleave": "band", "blockysize": 64}
        with rasterio.open(folder / f"{top}_{left}.tif", "w", transform=transform, **form, **options) as file:
            waves = 2000 + 1000 * np.sin(np.arange(top, top + tile)[:, np.newaxis] / 40)
            file.write((waves + rng.integers(0, 64, (BANDS, tile, tile))).astype("uint16"))
    bands = ""
    for band in range(1, BANDS + 1):
        sources = (SOURCE.format(name=f"{t}_{x}.tif", band=band, tile=tile, top=t, left=x) for t, x in places)
        bands += BAND.format(band=band, sources="".join(sources))
    (folder / "tiles.vrt").write_text(VRT.format(side=tile * TILES, bands=bands))


def merge_ours(folder: str) -> None:
    limits = [("run.workers", THREADS, "--workers"), ("run.durable", False, "--durable")]
    output = {"chunks": [CHUNK, CHUNK], "pyramid": "none"}
    api.convert(f"{folder}/*_*.tif", f"{folder}/ours.zarr", output=output, limits=limits)


def merge_rasterio(folder: str) -> None:
    configure(THREADS)
    with rasterio.open(f"{folder}/tiles.vrt", num_threads=THREADS) as file:
        codec = BloscCodec(typesize=2, **CODECS["fast"])
        shape, chunks = (file.count, *file.shape), (1, CHUNK, CHUNK)
        out = zarr.create_array(f"{folder}/theirs.zarr", shape=shape, chunks=chunks, dtype="uint16", compressors=codec)
        for top in range(0, file.height, STEP):
            for left in range(0, file.width, STEP):
                window = Window(left, top, min(STEP, file.width - left), min(STEP, file.height - top))
                out[:, top : top + STEP, left : left + STEP] = file.read(window=window)


def _fresh(folder: Path, name: str, function: object, array: str) -> Measured:
    shutil.rmtree(folder / name, ignore_errors=True)
    return in_own_process(function, str(folder), answer=(str(folder / name), array))  # type: ignore[arg-type]


def _same(ours: tuple[str, str], theirs: tuple[str, str]) -> bool:
    first, second = (zarr.open_array(path, path=array, mode="r") for path, array in (ours, theirs))
    return bool(np.array_equal(first[:, ::7, ::11], second[:, ::7, ::11]))


def rows(folder: Path, side: int) -> Iterator[Row]:
    """Row 17."""
    make(folder, side)
    peer = "rasterio, a VRT"
    others = {peer: partial(_fresh, folder, "theirs.zarr", merge_rasterio, "")}
    name = f"17. {TILES * TILES} tiles as one, to a store, {side} x {side} x {BANDS} uint16"
    ours = partial(_fresh, folder, "ours.zarr", merge_ours, "raster/value")
    yield Row(name, ours, others, _same)
    shutil.rmtree(folder)
