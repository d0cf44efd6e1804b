"""The viewer in a real browser: what a user does with it, and that it asks nobody but its server."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import zarr

from pipeline.verbs.view.server import Server
from tests.views import make_result, serving

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="no chromium with its chromedriver on this machine"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of selenium's pipes
]
SECONDS = 20.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("browser")
    make_result(place, side=1500)
    return place


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with serving(str(folder / "out.zarr"), str(folder / "scene.zarr")) as server:
        yield server


class Page:
    """The viewer's page, as a user sees and touches it."""

    def __init__(self, driver: Any, url: str) -> None:
        self.driver = driver
        driver.get(url)
        self.wait(lambda: self.tiles("left") and self.text("counts"))

    def wait(self, condition: Callable[[], Any]) -> Any:
        end = time.monotonic() + SECONDS
        while not (found := condition()):
            assert time.monotonic() < end, self.text("status") or "nothing happened"
            time.sleep(0.05)
        return found

    def by_id(self, name: str) -> Any:
        return self.driver.find_element("id", name)

    def text(self, name: str) -> str:
        return str(self.by_id(name).text)

    def script(self, code: str) -> Any:
        return self.driver.execute_script(code)

    def tiles(self, pane: str) -> list[str]:
        """Return the addresses of the tiles that are drawn, once all that are asked for are."""
        code = """
            const all = [...document.querySelectorAll(`.leaflet-%s-pane img.leaflet-tile`)];
            return all.every((each) => each.complete && each.naturalWidth === 256) ? all.map((each) => each.src) : [];
        """
        return list(self.script(code % pane))

    def key(self, letter: str) -> None:
        self.driver.find_element("tag name", "body").send_keys(letter)

    def choose(self, name: str, text: str) -> None:
        from selenium.webdriver.support.ui import Select

        Select(self.by_id(name)).select_by_visible_text(text)

    def at(self, row: float, column: float) -> tuple[int, int]:
        """Return where a place of the raster lies, from the middle of the map."""
        point = self.script(f"const p = view.map.latLngToContainerPoint([{row}, {column}]); return [p.x, p.y];")
        size = self.by_id("map").size
        return round(point[0] - size["width"] / 2), round(point[1] - size["height"] / 2)

    def actions(self) -> Any:
        return webdriver.ActionChains(self.driver)

    def click(self, row: float, column: float) -> None:
        self.actions().move_to_element_with_offset(self.by_id("map"), *self.at(row, column)).click().perform()

    def go_to(self, row: int, column: int, zoom: int) -> None:
        self.script(f"view.map.setView([{row}, {column}], {zoom}, {{animate: false}})")

    def colors(self, pane: str) -> list[list[int]]:
        """Return the colours of the middle of the map, from its tiles."""
        code = """
            const middle = view.map.getContainer().getBoundingClientRect();
            const [x, y] = [middle.left + middle.width / 2, middle.top + middle.height / 2];
            return [...document.querySelectorAll(`.leaflet-%s-pane img.leaflet-tile`)].flatMap((tile) => {
              const box = tile.getBoundingClientRect();
              if (x < box.left || x >= box.right || y < box.top || y >= box.bottom) return [];
              const canvas = document.createElement("canvas");
              canvas.width = canvas.height = 256;
              const context = canvas.getContext("2d");
              context.drawImage(tile, 0, 0);
              const scale = 256 / box.width;
              return [[...context.getImageData((x - box.left) * scale, (y - box.top) * scale, 1, 1).data]];
            });
        """
        return list(self.script(code % pane))


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1300,850"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture
def page(driver: Any, server: Server) -> Iterator[Page]:
    """The page; in the end, that nothing went wrong in it and that it asked nobody else."""
    with checked(driver, server) as page:
        yield page


@contextmanager
def checked(driver: Any, server: Server) -> Iterator[Page]:
    driver.get_log("performance")
    page = Page(driver, server.url)
    yield page
    assert [entry for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    assert page.text("status") == ""
    asked = set()
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            asked.add(urlsplit(message["params"]["request"]["url"])[:2])
    assert asked - {("data", "")} == {("http", f"127.0.0.1:{server.port}")}


def test_rasters_and_bands(page: Page) -> None:
    names = [option.text for option in page.by_id("raster").find_elements("tag name", "option")]
    assert names == ["bands/value", "cells/labels", "poster/index", "slope/direction", "slope/dy", "scene"]
    page.choose("raster", "slope/dy")
    page.wait(lambda: "blue-red" in (page.by_id("ramp").get_attribute("src") or ""))
    tiles = page.wait(lambda: page.tiles("left"))
    assert all("bands=0&" in tile for tile in tiles)
    page.key("]")
    tiles = page.wait(lambda: [tile for tile in page.tiles("left") if "bands=1&" in tile])
    assert len(tiles) == len(page.tiles("left"))
    page.key("n")
    page.wait(lambda: page.by_id("raster").get_attribute("value") == "5")
    page.wait(lambda: page.tiles("left"))


def test_pixels_at_full_resolution(page: Page, folder: Path) -> None:
    """From the overview to full resolution; the pixel that is read, and its colour, are those of the store."""
    page.choose("raster", "slope/dy")
    page.wait(lambda: any("power=2" in tile for tile in page.tiles("left")))
    page.go_to(700, 801, 0)
    page.key("1")
    page.wait(lambda: any("power=0" in tile for tile in page.tiles("left")))
    page.go_to(700, 801, 4)
    store: Any = zarr.open_group(folder / "out.zarr", mode="r")
    stored = np.asarray(store["slope/dy"][700, 801])
    page.click(700.5, 801.5)
    told = page.wait(lambda: page.text("pixel") if "slope/dy" in page.text("pixel") else "")
    assert "row, column 700, 801" in told
    lines = told.splitlines()
    place = lines.index("slope/dy")
    assert [np.float32(line.split()[1]) for line in lines[place + 1 : place + 4]] == stored.tolist()
    from pipeline.picture.style import Style

    low, high = page.script("return state.picture.style.limits[0]")
    expected = Style("diverging", "blue-red", ((low, high),)).paint(stored[np.newaxis, np.newaxis, :1])[0, 0]
    page.go_to(700.5, 801.5, 4)
    (color,) = page.wait(lambda: page.tiles("left") and page.colors("left"))
    assert color == [*expected.tolist(), 255]


def test_swipe(page: Page) -> None:
    page.choose("raster", "slope/dy")
    page.wait(lambda: page.text("facts").startswith("1500 × 1423 × 3 float32"))
    assert not page.by_id("divider").is_displayed()
    page.choose("compare", "bands/value")
    assert page.wait(lambda: page.tiles("right"))
    shown = "return ['left', 'right'].map((side) => view.map.getPane(side).style.clip)"
    left, right = page.script(shown)
    assert left != right
    assert left.startswith("rect(")
    page.script("const d = document.getElementById('divider'); d.value = 900; d.dispatchEvent(new Event('input'))")
    assert page.script(shown) != [left, right]
    page.key("x")
    page.wait(lambda: page.by_id("compare").get_attribute("value") == "4")
    page.key("c")
    page.wait(lambda: page.script(shown) == ["auto", "auto"])


def test_a_box_is_a_region(page: Page) -> None:
    page.go_to(600, 600, 0)
    page.key("b")
    start, end = page.at(500.5, 520.5), page.at(640.5, 700.5)
    canvas = page.by_id("map")
    actions = page.actions().move_to_element_with_offset(canvas, *start).click_and_hold()
    actions.move_to_element_with_offset(canvas, *end).release().perform()
    page.wait(lambda: page.by_id("region").is_displayed())
    text = page.by_id("region").get_attribute("value")
    rows, columns = ([int(each) for each in part.split("]")[0].split(", ")] for part in text.split("[")[1:])
    assert text == f"region: {{rows: [{rows[0]}, {rows[1]}], columns: [{columns[0]}, {columns[1]}]}}"
    assert np.abs(np.array([*rows, *columns]) - [500, 641, 520, 701]).max() <= 1
    before = page.script("return view.map.getCenter().lat")
    actions = page.actions().move_to_element_with_offset(canvas, 0, 0).click_and_hold()
    actions.move_by_offset(0, 60).release().perform()
    page.wait(lambda: page.script("return view.map.getCenter().lat") != before)  # it pans again


def test_colours_and_limits(page: Page) -> None:
    page.choose("raster", "slope/dy")
    page.wait(lambda: "blue-red" in (page.by_id("ramp").get_attribute("src") or ""))
    page.choose("colors", "magma")
    page.wait(lambda: page.tiles("left") and all("map=magma" in tile for tile in page.tiles("left")))
    change = (
        "const f = document.querySelectorAll('#limits input')[1]; f.value = %r; f.dispatchEvent(new Event('change'))"
    )
    page.script(change % "")  # nothing is no number
    page.script(change % "33.5")
    page.wait(lambda: page.tiles("left") and all("%2C33.5&" in tile for tile in page.tiles("left")))
    page.by_id("auto").click()
    page.wait(lambda: page.tiles("left") and not any("%2C33.5&" in tile for tile in page.tiles("left")))
    page.by_id("stretch").click()
    page.wait(lambda: page.tiles("left"))


def test_what_a_label_is(page: Page, folder: Path) -> None:
    page.choose("raster", "cells/labels")
    page.wait(lambda: page.text("facts").startswith("1500 × 1423 × 1 "))
    store: Any = zarr.open_group(folder / "out.zarr", mode="r")
    labels = np.asarray(store["cells/labels"][...])
    number = int(np.bincount(labels[300:1200, 300:1200].ravel())[1:].argmax() + 1)
    row, column = (int(each[0]) for each in np.nonzero(labels == number))
    page.go_to(row, column, 3)
    page.actions().move_to_element_with_offset(page.by_id("map"), *page.at(row + 0.5, column + 0.5)).perform()
    find = "return document.querySelector('.leaflet-tooltip')?.textContent ?? ''"
    told = page.wait(lambda: page.script(find))
    pixels = int(store["stats/table/pixels"][np.nonzero(np.asarray(store["stats/table/label"][...]) == number)[0][0]])
    assert f"label{number}" in told
    assert f"pixels{pixels}" in told


def test_text_of_files_is_text(driver: Any, tmp_path: Path) -> None:
    """Names that a page would run, of bands and of the file; and a raster of one pixel."""
    evil = "<img src=x onerror=document.title=1>"
    path = tmp_path / f"{evil}.zarr"
    group = zarr.create_group(path)
    array = group.create_array("image", shape=(1, 1, 2), dtype="f4", dimension_names=("y", "x", "band"))
    array[...] = 7
    names = group.create_array("band", shape=(2,), dtype=np.dtypes.StringDType(), dimension_names=("band",))
    names[...] = np.array([evil, "</script>"], np.dtypes.StringDType())
    with serving(str(path)) as server, checked(driver, server) as page:
        assert evil in page.text("facts")
        page.click(0.5, 0.5)
        told = page.wait(lambda: page.text("pixel") if evil in page.text("pixel") else "")
        assert f"{evil} 7.0" in told
        assert driver.find_elements("css selector", "aside img:not(#ramp)") == []
        assert driver.title == "image · rasterpipe view"
