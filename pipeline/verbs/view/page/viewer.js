"use strict";
// What happens: choices, keys, and what the server is asked.

const state = { rasters: [], maps: [], picture: null, natural: null, other: null, opacity: 1 };
let view = null;

async function ask(path, fields = {}) {
  const answer = await fetch(`${path}?${new URLSearchParams(fields)}`);
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error);
  return found;
}

function later(milliseconds, action) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...values), milliseconds);
  };
}

const tell = (message) => { $("status").textContent = message; };
const raster = () => state.rasters[state.picture.number];

async function pictureOf(number, bands) {
  const style = await ask("style.json", { raster: number, bands: bands.join() });
  return { number, bands, style };
}

// Show a raster, with the style that fits it; the map stays where the grid is the same.
async function choose(number, bands = state.rasters[number].drawn) {
  const picture = await pictureOf(number, bands);
  const before = state.picture?.number;
  state.picture = picture;
  state.natural = picture.style;
  if (before === undefined || !raster().alike.includes(before)) {
    view.fit(raster());
    view.marked?.remove();
    $("place").textContent = "";
    if (state.other && !raster().alike.includes(state.other.number)) state.other = null;
  }
  draw();
}

// Draw all anew; `restyled` where only the colours of the raster are others.
function draw(restyled = false) {
  const { picture } = state;
  if (restyled) view.redraw("left", picture);
  else {
    view.show("left", picture, raster(), state.opacity);
    view.show("right", state.other, raster(), 1);
  }
  fill($("raster"), state.rasters.map((each, index) => [index, each.name]), picture.number);
  showFacts(raster());
  showBands(raster(), picture.bands, (bands) => attempt(() => choose(picture.number, bands)));
  showColors(raster(), picture.style, state.natural, state.maps);
  showLimits(picture.style, (limits) => restyle({ ...picture.style, limits }));
  showLegend(raster(), picture.bands, picture.style);
  const alike = raster().alike.filter((index) => index !== picture.number);
  fill($("compare"), [["", alike.length ? "nothing" : "none has this grid"], ...alike.map((i) => [i, state.rasters[i].name])], state.other?.number ?? "");
  $("divider").hidden = $("bar-of-divider").hidden = !state.other;
  count();
}

function restyle(style) {
  state.picture = { ...state.picture, style };
  draw(true);
}

async function attempt(action) {
  try {
    tell("");
    await action();
  } catch (error) {
    tell(error.message);
  }
}

const count = later(150, () => attempt(async () => {
  const region = view.seen(raster());
  if (!region) return;
  const { number, bands, style } = state.picture;
  const found = await ask("histogram.json", {
    raster: number, bands: bands.join(), kind: style.kind, map: style.map, limits: style.limits.flat().join(), ...region,
  });
  if (state.picture.number !== number) return;
  state.histogram = found;
  showHistogram(found, style);
}));

function stretch() {
  const { style } = state.picture;
  const spreads = (state.histogram?.bands ?? []).map((band) => band.spread);
  if (spreads.length !== style.limits.length) return;
  const about0 = style.kind === "diverging";
  restyle({ ...style, limits: spreads.map(([low, high]) => (about0 ? [-Math.max(-low, high), Math.max(-low, high)] : [low, high])) });
}

async function compare(number) {
  state.other = number === null ? null : await pictureOf(number, state.rasters[number].drawn);
  draw();
}

function exchange() {
  if (!state.other) return;
  [state.picture, state.other] = [state.other, state.picture];
  state.natural = state.picture.style;
  draw();
}

function toggleSwipe() {
  const other = raster().alike.find((index) => index !== state.picture.number);
  return compare(state.other || other === undefined ? null : other);
}

function inside(latlng) {
  const [row, column] = [Math.floor(latlng.lat), Math.floor(latlng.lng)];
  return row >= 0 && column >= 0 && row < raster().height && column < raster().width ? { row, column } : null;
}

async function read(latlng) {
  const place = inside(latlng);
  if (!place || view.stopDrawing || view.justDrawn) return;
  const found = await ask("pixel.json", { raster: state.picture.number, ...place });
  view.mark(place.row, place.column);
  showPixel(found, state.rasters);
}

function showPlace(latlng) {
  const place = inside(latlng);
  const t = raster().transform;
  const point = t && place ? [t[0] * latlng.lng + t[1] * latlng.lat + t[2], t[3] * latlng.lng + t[4] * latlng.lat + t[5]] : null;
  const numbers = point ? ` · ${point.map((each) => Number(each.toPrecision(9))).join(", ")}` : "";
  $("place").textContent = place ? `row ${place.row}, column ${place.column}${numbers} · ${zoomText()}` : "";
}

function zoomText() {
  const zoom = view.map.getZoom();
  return zoom < 0 ? `1:${2 ** -zoom}` : `${2 ** zoom}:1`;
}

// Over a raster of classes or objects: the number, and what tables say of it.
const hover = later(120, (latlng) => attempt(async () => {
  const place = inside(latlng);
  view.hint?.remove();
  if (!place || view.stopDrawing || state.picture.style.kind !== "categorical") return;
  const found = await ask("pixel.json", { raster: state.picture.number, ...place });
  const own = found.rasters.find((each) => each.raster === state.picture.number);
  if (!own?.bands[0].valid) return;
  const rows = own.tables.flatMap((table) => Object.entries(table.row)).slice(0, 12);
  view.hint = L.tooltip({ direction: "right", offset: [12, 0] })
    .setLatLng(latlng)
    .setContent(tableOf(rows.length ? rows : [["value", own.bands[0].value]]))
    .addTo(view.map);
}));

function drawBox() {
  $("draw").classList.add("on");
  view.drawBox(raster(), (region) => {
    $("draw").classList.remove("on");
    $("box").hidden = false;
    $("region").value = `region: {rows: [${region.top}, ${region.bottom}], columns: [${region.left}, ${region.right}]}`;
  });
}

async function copy() {
  $("region").select();
  await navigator.clipboard.writeText($("region").value);
  $("copy").textContent = "copied";
  setTimeout(() => { $("copy").textContent = "copy"; }, 1500);
}

function step(by) {
  const total = state.rasters.length;
  return choose((state.picture.number + by + total) % total);
}

function stepBand(by) {
  const total = raster().bands.length;
  return choose(state.picture.number, [(state.picture.bands[0] + by + total) % total]);
}

const KEYS = {
  n: () => step(1), p: () => step(-1), "]": () => stepBand(1), "[": () => stepBand(-1),
  f: () => view.fit(raster()), 1: () => view.map.setZoom(0), c: toggleSwipe, x: exchange, b: drawBox,
  Escape: () => { view.stopDrawing?.(); $("draw").classList.remove("on"); },
};

function listen() {
  $("raster").addEventListener("change", () => attempt(() => choose(Number($("raster").value))));
  $("mode").addEventListener("change", () => {
    const drawn = raster().drawn.length === 3 ? raster().drawn : [0, 1, 2];
    attempt(() => choose(state.picture.number, $("mode").value === "three" ? drawn : [state.picture.bands[0]]));
  });
  $("colors").addEventListener("change", () => restyle(chosenColors(state.picture.style)));
  $("auto").addEventListener("click", () => restyle({ ...state.picture.style, limits: state.natural.limits }));
  $("stretch").addEventListener("click", stretch);
  $("opacity").addEventListener("input", () => {
    state.opacity = Number($("opacity").value) / 100;
    view.layers.left?.setOpacity(state.opacity);
  });
  $("compare").addEventListener("change", () => attempt(() => compare($("compare").value === "" ? null : Number($("compare").value))));
  $("divider").addEventListener("input", () => {
    const fraction = Number($("divider").value) / 1000;
    $("bar-of-divider").style.left = `${100 * fraction}%`;
    view.swipe(fraction);
  });
  $("fit").addEventListener("click", KEYS.f);
  $("full").addEventListener("click", KEYS[1]);
  $("draw").addEventListener("click", drawBox);
  $("copy").addEventListener("click", () => attempt(copy));
  view.map.on("moveend", count);
  view.map.on("click", (event) => attempt(() => read(event.latlng)));
  view.map.on("mousemove", (event) => { showPlace(event.latlng); hover(event.latlng); });
  view.onerror = tell;
  document.addEventListener("keydown", (event) => {
    const typing = ["INPUT", "SELECT"].includes(event.target.tagName) && event.target.type !== "range";
    if (typing || event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
    event.preventDefault();
    attempt(KEYS[event.key]);
  });
}

async function start() {
  const found = await ask("rasters.json");
  Object.assign(state, { rasters: found.rasters, maps: found.maps });
  view = new RasterMap("map", found.tile, found.run);
  $("bar-of-divider").style.left = "50%";
  document.title = `${found.rasters[0].name} · rasterpipe view`;
  view.map.setView([0, 0], 0);
  listen();
  await choose(0);
}

attempt(start);
