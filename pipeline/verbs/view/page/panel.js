"use strict";
// The panel: what is chosen, and what is known of the raster. Text of files is set as text, never as HTML.

const $ = (id) => document.getElementById(id);

function element(tag, text, ...children) {
  const made = document.createElement(tag);
  if (text !== null && text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

function fill(select, entries, chosen) {
  select.replaceChildren(...entries.map(([value, text]) => {
    const option = element("option", text);
    option.value = value;
    return option;
  }));
  if (chosen !== undefined) select.value = chosen;
}

function number(value) {
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e7) ? value.toExponential(3) : String(Number(value.toPrecision(5)));
}

// A stored value as its unit has it, by the scale that the file records; empty where that changes nothing.
function physical(raster, band, value) {
  const [factor, offset] = raster.scales[band] ?? [1, 0];
  return factor === 1 && offset === 0 ? "" : number(value * factor + offset);
}

const CHANNELS = ["red", "green", "blue"];

function showFacts(raster) {
  const levels = raster.levels.length > 1 ? `levels 1:${raster.levels.at(-1)}` : "no levels";
  $("facts").textContent = `${raster.height} × ${raster.width} × ${raster.bands.length} ${raster.dtype}, ${levels} · ${raster.path}`;
}

function showBands(raster, bands, changed) {
  $("mode").value = bands.length === 3 ? "three" : "one";
  $("mode").parentElement.hidden = raster.bands.length < 3;
  $("bands").replaceChildren(...bands.map((band, place) => {
    const select = element("select");
    fill(select, raster.bands.map((name, index) => [index, name]), band);
    select.addEventListener("change", () => changed(bands.map((old, i) => (i === place ? Number(select.value) : old))));
    return element("label", bands.length === 3 ? CHANNELS[place] : "Band", select);
  }));
  $("bands").hidden = raster.bands.length < 2;
}

const MAP_KINDS = { cycle: "cyclic", "blue-red": "diverging", "brown-green": "diverging" };

function showColors(raster, style, natural, maps) {
  const own = [];
  if (natural.kind === "palette") own.push(["palette", "its own palette"]);
  if (raster.dtype.includes("int")) own.push(["categorical", "classes"]);
  const plain = style.kind !== "categorical" && style.kind !== "palette";
  fill($("colors"), [...own, ...maps.map((name) => [name, name])], plain ? style.map : style.kind);
  $("colors").parentElement.hidden = style.kind === "color";
}

function chosenColors(style) {
  const value = $("colors").value;
  if (value === "palette" || value === "categorical") return { ...style, kind: value };
  return { ...style, kind: MAP_KINDS[value] ?? "sequential", map: value };
}

function showLimits(style, changed) {
  const plain = style.kind !== "categorical" && style.kind !== "palette";
  $("limits").hidden = !plain;
  $("limits").nextElementSibling.hidden = !plain;
  $("limits").replaceChildren(...style.limits.map((pair, place) => {
    const fields = pair.map((value, end) => {
      const field = element("input");
      field.type = "number";
      field.step = "any";
      field.value = Number(value.toPrecision(6));
      field.setAttribute("aria-label", `${end ? "high" : "low"} limit${style.limits.length > 1 ? ` of ${CHANNELS[place]}` : ""}`);
      field.addEventListener("change", () => {
        const read = pair.map((old, i) => (i === end ? Number(field.value) : old));
        if (field.value !== "" && read.every(Number.isFinite)) changed(style.limits.map((old, i) => (i === place ? read : old)));
      });
      return field;
    });
    const row = element("div", null, element("span", style.limits.length > 1 ? CHANNELS[place] : "limits"), ...fields);
    row.className = "pair";
    return row;
  }));
}

function showLegend(raster, bands, style) {
  const plain = !["categorical", "palette", "color"].includes(style.kind);
  $("ramp").hidden = $("ends").hidden = !plain;
  $("classes").hidden = plain;
  if (!plain) return;
  $("ramp").src = `bar.png?map=${style.map}`;
  const [low, high] = style.limits[0];
  const unit = raster.units[bands[0]] ?? "";
  const [first, middle, last] = [low, (low + high) / 2, high].map((value) => physical(raster, bands[0], value) || number(value));
  $("ends").replaceChildren(element("span", first), element("span", middle), element("span", `${last} ${unit}`));
}

function showHistogram(found, style) {
  const canvas = $("histogram");
  const [context, width, height] = [canvas.getContext("2d"), canvas.width, canvas.height];
  context.clearRect(0, 0, width, height);
  const shades = found.bands.length === 3 ? ["rgb(214 69 65 / 60%)", "rgb(60 160 80 / 60%)", "rgb(60 110 200 / 60%)"] : ["rgb(110 130 150 / 90%)"];
  const [low, high] = [Math.min(...found.bands.map((b) => b.minimum)), Math.max(...found.bands.map((b) => b.maximum))];
  const at = (value) => (high > low ? ((value - low) / (high - low)) * width : width / 2);
  found.bands.forEach((band, place) => {
    const most = Math.max(1, ...band.counts);
    const step = (at(band.maximum) - at(band.minimum)) / band.counts.length || width / band.counts.length;
    context.fillStyle = shades[place];
    band.counts.forEach((count, i) => {
      const tall = Math.sqrt(count / most) * (height - 4);
      context.fillRect(at(band.minimum) + i * step, height - tall, Math.max(1, step - 0.5), tall);
    });
  });
  if (!["categorical", "palette"].includes(style.kind)) {
    context.fillStyle = "#d6453f";
    for (const value of style.limits[0]) context.fillRect(Math.round(at(value)), 0, 1, height);
  }
  const share = found.pixels ? ((100 * found.valid) / found.pixels).toFixed(found.valid === found.pixels ? 0 : 2) : 0;
  const told = found.finite ? `${number(low)} to ${number(high)}` : "no finite value";
  $("counts").textContent = found.valid ? `in view: ${told}, ${share} % valid` : "in view: no valid pixel";
  const classes = (found.classes ?? []).map((each) => {
    const swatch = element("i");
    swatch.style.backgroundColor = `rgb(${each.color.join(" ")})`;
    const row = element("div", null, swatch, element("span", each.value));
    row.className = "class";
    return row;
  });
  const rest = (found.num_classes ?? 0) - classes.length;
  $("classes").replaceChildren(...classes, ...(rest > 0 ? [element("div", `and ${rest} more`)] : []));
}

function tableOf(rows) {
  return element("table", null, ...rows.map(([name, value]) => element("tr", null, element("th", name), element("td", value))));
}

function valueOf(raster, band, value) {
  const [unit, scaled] = [raster.units[band] ?? "", physical(raster, band, Number(value))];
  return (scaled ? `${scaled} ${unit} (stored: ${value})` : `${value} ${unit}`).replace(/\s+/g, " ").trim();
}

function showPixel(found, rasters) {
  const place = [["row, column", `${found.row}, ${found.column}`]];
  if (found.point) place.push(["x, y", found.point.map((each) => Number(each.toPrecision(12))).join(", ")]);
  const parts = found.rasters.flatMap((each) => {
    const raster = rasters[each.raster];
    const single = raster.bands.length === 1;
    const rows = each.bands.map((band, i) => [
      single ? "value" : band.band, band.valid ? valueOf(raster, i, band.value) : `no data (${band.value})`,
    ]);
    const tables = each.tables.flatMap((table) => [element("h3", table.table), tableOf(Object.entries(table.row))]);
    const rest = raster.bands.length - each.bands.length;
    return [element("h3", raster.name), tableOf(rows), ...(rest > 0 ? [element("p", `and ${rest} bands more`)] : []), ...tables];
  });
  $("pixel").replaceChildren(tableOf(place), ...parts);
}
