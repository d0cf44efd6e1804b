"use strict";
// The map: pixels of the raster are its coordinates, rows downwards; zoom 0 is full resolution.

const RasterTiles = L.TileLayer.extend({
  // `picture` is what is drawn: {number, bands, style}
  getTileUrl(place) {
    const { number, bands, style } = this.options.picture;
    const query = new URLSearchParams({
      raster: number, power: -place.z, row: place.y, column: place.x, bands: bands.join(),
      kind: style.kind, map: style.map, limits: style.limits.flat().join(), run: this.options.run,
    });
    return `tile.png?${query}`;
  },
  show(picture) {
    this.options.picture = picture;
    this.redraw();
  },
});

class RasterMap {
  constructor(element, tile, run) {
    const crs = L.extend({}, L.CRS.Simple, { transformation: new L.Transformation(1, 0, 1, 0) });
    this.map = L.map(element, {
      crs, minZoom: -24, maxZoom: 6, attributionControl: false, boxZoom: false, zoomAnimation: true, maxBoundsViscosity: 0,
    });
    this.tile = tile;
    this.run = run;
    this.layers = {};
    this.fraction = 0.5;
    for (const side of ["left", "right"]) this.map.createPane(side).classList.add("pixels");
    this.map.getPane("right").style.zIndex = 210;
    this.map.getPane("left").style.zIndex = 200;
    this.map.on("move zoomend resize viewreset", () => this.clip());
  }

  show(side, picture, raster, opacity) {
    this.layers[side]?.remove();
    delete this.layers[side];
    if (picture) {
      this.layers[side] = new RasterTiles("", {
        pane: side, tileSize: this.tile, minZoom: -24, maxZoom: 6, minNativeZoom: -24, maxNativeZoom: 0, noWrap: true,
        bounds: [[0, 0], [raster.height, raster.width]], opacity, picture, run: this.run,
      }).on("tileerror", () => this.onerror?.("a tile could not be read")).addTo(this.map);
    }
    this.clip();
  }

  redraw(side, picture) {
    this.layers[side]?.show(picture);
  }

  swipe(fraction) {
    this.fraction = fraction;
    this.clip();
  }

  clip() {
    // a pane is clipped in the coordinates of its layers, which move with the map
    const size = this.map.getSize();
    const [first, last] = [[0, 0], [size.x, size.y]].map((point) => this.map.containerPointToLayerPoint(point));
    const middle = first.x + (last.x - first.x) * this.fraction;
    const rect = (from, to) => `rect(${first.y}px, ${to}px, ${last.y}px, ${from}px)`;
    const both = Boolean(this.layers.right);
    this.map.getPane("left").style.clip = both ? rect(first.x, middle) : "auto";
    this.map.getPane("right").style.clip = both ? rect(middle, last.x) : "auto";
  }

  fit(raster) {
    const size = this.map.getSize();
    const zoom = Math.floor(Math.log2(Math.min(size.x / raster.width, size.y / raster.height)));
    this.map.setView([raster.height / 2, raster.width / 2], Math.min(4, Math.max(-24, zoom)), { animate: false });
  }

  // What is seen of a raster, in its rows and columns; null where nothing is.
  seen(raster) {
    const bounds = this.map.getBounds();
    const region = {
      top: Math.max(0, Math.floor(bounds.getSouth())), bottom: Math.min(raster.height, Math.ceil(bounds.getNorth())),
      left: Math.max(0, Math.floor(bounds.getWest())), right: Math.min(raster.width, Math.ceil(bounds.getEast())),
    };
    return region.top < region.bottom && region.left < region.right ? region : null;
  }

  mark(row, column) {
    this.marked?.remove();
    this.marked = L.rectangle([[row, column], [row + 1, column + 1]], { color: "#fff", weight: 2, fill: false });
    this.marked.addTo(this.map);
  }

  // Let a box be drawn once; its corners are whole pixels of the raster.
  drawBox(raster, done) {
    const element = this.map.getContainer();
    element.classList.add("drawing");
    this.map.dragging.disable();
    let start = null;
    const cut = (value, most) => Math.min(most, Math.max(0, value));
    const region = (event) => {
      const [rows, columns] = [[start.lat, event.latlng.lat], [start.lng, event.latlng.lng]];
      return {
        top: cut(Math.floor(Math.min(...rows)), raster.height), bottom: cut(Math.ceil(Math.max(...rows)), raster.height),
        left: cut(Math.floor(Math.min(...columns)), raster.width), right: cut(Math.ceil(Math.max(...columns)), raster.width),
      };
    };
    const down = (event) => { start = event.latlng; };
    const move = (event) => {
      if (!start) return;
      const { top, bottom, left, right } = region(event);
      this.box ??= L.rectangle([[0, 0], [0, 0]], { color: "#ffd23f", weight: 2, fillOpacity: 0.1, interactive: false });
      this.box.setBounds([[top, left], [bottom, right]]).addTo(this.map);
    };
    const up = (event) => {
      if (!start) return;
      const found = region(event);
      stop();
      this.justDrawn = true; // the click that ends the box reads no pixel
      setTimeout(() => { this.justDrawn = false; }, 50);
      if (found.top < found.bottom && found.left < found.right) done(found);
    };
    const stop = () => {
      this.map.off("mousedown", down).off("mousemove", move).off("mouseup", up);
      this.map.dragging.enable();
      element.classList.remove("drawing");
      this.stopDrawing = null;
    };
    this.stopDrawing?.();
    this.stopDrawing = stop;
    this.map.on("mousedown", down).on("mousemove", move).on("mouseup", up);
  }
}
