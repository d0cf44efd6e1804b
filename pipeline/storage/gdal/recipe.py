"""A VRT looked through before GDAL opens it: every file that it names lies below its folder, and nothing runs."""

from __future__ import annotations

import os
import re
import stat
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator

from pipeline.model.errors import InputError
from pipeline.model.raster import printable
from pipeline.model.read_limits import ReadLimits

TREE_COPIES = 20
"""Bytes of an XML tree for each of its text, measured, and of GDAL's own."""
SOURCES_LIMIT = 65_536
NESTED_LIMIT = 16
SOURCE = "SourceFilename"
ELEMENTS = set(
    f"VRTDataset SRS GeoTransform GCPList GCP Metadata MDI VRTRasterBand ColorInterp NoDataValue HideNoDataValue "
    f"ColorTable Entry Description UnitType Offset Scale CategoryNames Category Histograms HistItem HistMin HistMax "
    f"BucketCount IncludeOutOfRange Approximate HistCounts SimpleSource ComplexSource AveragedSource NoDataSource "
    f"SourceBand SourceProperties SrcRect DstRect NODATA LUT ScaleOffset ScaleRatio ColorTableComponent UseMaskBand "
    f"MaskBand OverviewList BlockXSize BlockYSize {SOURCE}".split()
)
"""What puts pixels of files side by side, or names what they are."""
HEADS = (b"II*\0", b"II+\0", b"MM\0*", b"MM\0+", b"\x89PNG", b"\xff\xd8\xff", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")
"""How TIFF, PNG, JPEG and JPEG 2000 begin: no other driver of GDAL's takes such a file for its own."""


def check_recipe(path: str, limits: ReadLimits) -> list[str]:
    """Return the files that a VRT reads, those of VRTs in it included; raise InputError where it is not harmless."""
    files, waiting, folder = [path], [(path, 0)], os.path.dirname(path)
    known = {path}
    while waiting:
        recipe, depth = waiting.pop()
        if depth > NESTED_LIMIT:
            raise InputError(f"{path}: VRTs in VRTs, more than {NESTED_LIMIT} deep; write one out first")
        for source, place in _sources(recipe, folder, limits):
            if source in known:
                continue
            known.add(source)
            files.append(source)
            if len(files) > SOURCES_LIMIT:
                raise InputError(f"{path}: names more than {SOURCES_LIMIT:,} files; split it")
            if _is_recipe(source, place):
                waiting.append((source, depth + 1))
    return files


def _sources(path: str, folder: str, limits: ReadLimits) -> Iterator[tuple[str, str]]:
    """Yield the files that a VRT names, and where it does so."""
    size = os.path.getsize(path)
    limits.check_allocation(f"{path}: its text", TREE_COPIES * size)
    with open(path, "rb") as file:
        text = file.read(size)
    if re.search(rb"<!\s*(DOCTYPE|ENTITY)", text, re.IGNORECASE):
        raise InputError(f"{path}: declares a document type, which is not safe to read; write it again")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise InputError(f"{path}: is no VRT that can be read: {error}; write it again") from error
    if root.tag != "VRTDataset":
        raise InputError(f"{path}: is no VRT: it begins with <{printable(str(root.tag))[:80]}>")
    count = 0
    for element in root.iter():
        tag, kind = printable(str(element.tag))[:80], printable(element.get("subClass", ""))[:80]
        if tag not in ELEMENTS or kind not in ("", "VRTSourcedRasterBand"):
            what = f'<{tag} subClass="{kind}">' if kind else f"<{tag}>"
            raise InputError(
                f"{path}: {what} is not read: of a VRT only sources side by side are, no warping, no pixel functions, "
                "no options; write it out first: gdal_translate"
            )
        if tag == SOURCE:
            place, count = f"{path}: source {count + 1}", count + 1
            yield _inside(element, os.path.dirname(path), folder, place), place


def _inside(element: ElementTree.Element, here: str, folder: str, place: str) -> str:
    """Return the absolute path of a source; raise InputError where it does not lie below the folder."""
    name = element.text or ""
    shown = printable(name)[:200]
    relative = any(key.lower() == "relativetovrt" and value == "1" for key, value in element.items())
    if re.match(r"\s|\w+:", name) or name != name.rstrip() or "\0" in name:
        raise InputError(f"{place}, {shown!r}: is no plain path; name files alone")
    if not relative and not name.startswith("/"):
        raise InputError(f"{place}, {shown!r}: is no path from the VRT on (relativeToVRT is not 1); write it so")
    if ".." in name.split("/"):
        raise InputError(f"{place}, {shown!r}: leads out of its folder with `..`; put the files below the VRT's folder")
    found = os.path.normpath(os.path.join(here, name) if not name.startswith("/") else name)
    if (relative and name.startswith("/")) or not found.startswith(folder.rstrip("/") + "/"):
        raise InputError(f"{place}, {shown!r}: does not lie below the VRT's folder; put the files there")
    return found


def _is_recipe(path: str, place: str) -> bool:
    """Return whether a source is a VRT itself; raise InputError where it is no file that is read for sure."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{place}: {path} is not a file")
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError as error:
        raise InputError(f"{place}: {path} cannot be read: {error.strerror or error}") from error
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"<VRTDataset", b"<?xml")):
        return True
    if not head.startswith(HEADS):
        raise InputError(
            f"{place}: {path} is no TIFF, JPEG 2000, PNG, JPEG or VRT, which are the sources of a "
            "VRT that are read; convert it first"
        )
    return False
