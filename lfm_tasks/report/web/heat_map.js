// Heat maps: cells as one small picture, names, numbers, frames and a tree as lines and text around it.
const VIRIDIS = "4401544828783e4a8931688e26828e1f9e8935b7796ece58b5de2bfde725";
const BLUE_WHITE_RED = "0530612166ac4393c392c5ded1e5f0f7f7f7fddbc7f4a582d6604db2182b67001f";

const color = (palette, share) => {
  const last = palette.length / 6 - 1, place = Math.max(0, Math.min(1, share)) * last, below = Math.min(last - 1, Math.floor(place));
  const stop = (i) => [0, 2, 4].map((d) => parseInt(palette.slice(6 * i + d, 6 * i + d + 2), 16));
  const [from, to] = [stop(below), stop(below + 1)];
  return from.map((part, d) => Math.round(part + (to[d] - part) * (place - below)));
};
const inkOn = ([red, green, blue]) => (0.299 * red + 0.587 * green + 0.114 * blue > 135 ? "#10151a" : "#ffffff");

const picture = (columns, rows, colorAt) => {
  const canvas = html("canvas", { width: columns, height: rows }), context = canvas.getContext("2d");
  const pixels = context.createImageData(columns, rows);
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) {
    const found = colorAt(r, c);
    if (found) pixels.data.set([...found, 255], 4 * (r * columns + c));
  }
  context.putImageData(pixels, 0, 0);
  return canvas.toDataURL();
};

const heatMap = (host, drawn) => {
  const { rows, columns, value, palette = VIRIDIS, low = 0, path = [], tree, said, choose } = drawn;
  const nRows = rows.length, nColumns = columns.length;
  let high = drawn.high ?? 1;
  rows.forEach((_, r) => columns.forEach((__, c) => { if (value(r, c) > high) high = value(r, c); }));
  const size = Math.max(8, Math.min(46, Math.floor(640 / Math.max(nRows, nColumns))));
  const font = Math.min(13, size + 1), wide = (names) => Math.max(0, ...names.map((name) => shortened(name).length)) * font * 0.6;
  const left = Math.ceil(wide(rows)) + 12, turned = size < 16 ? 90 : 45;
  const top = Math.ceil(wide(columns) * Math.sin((turned * Math.PI) / 180)) + 16;
  const [width, height] = [size * nColumns, size * nRows];
  const room = tree?.xs.length ? Math.max(70, width * 0.25) : 0;
  const x = (c) => left + size * c, y = (r) => top + size * r;
  const share = (r, c) => (value(r, c) - low) / (high - low);
  const made = svg("svg", {
    viewBox: `0 0 ${left + width + Math.max(room, wide(columns) * 0.71, 60)} ${top + height + 34}`,
    "font-size": font, "aria-hidden": "true",
  });
  made.setAttribute("width", made.viewBox.baseVal.width);
  made.append(svg("image", {
    x: left, y: top, width, height, preserveAspectRatio: "none",
    href: picture(nColumns, nRows, (r, c) => (Number.isNaN(value(r, c)) ? null : color(palette, share(r, c)))),
  }));
  const lines = [];
  if (size >= 12) {
    for (let r = 1; r < nRows; r++) lines.push(`M${left} ${y(r)}h${width}`);
    for (let c = 1; c < nColumns; c++) lines.push(`M${x(c)} ${top}v${height}`);
  }
  made.append(svg("path", { class: "grid", d: lines.join("") }));
  const missing = [];
  rows.forEach((_, r) => columns.forEach((__, c) => { if (Number.isNaN(value(r, c))) missing.push(`M${x(c)} ${y(r)}l${size} ${size}`); }));
  made.append(svg("path", { class: "missing", d: missing.join("") }));
  rows.forEach((name, r) => made.append(svg("text", { x: left - 6, y: y(r + 0.5) + font / 3, "text-anchor": "end" }, shortened(name))));
  columns.forEach((name, c) => made.append(svg("text", { transform: `translate(${x(c + 0.5) + 3} ${top - 6}) rotate(-${turned})` }, shortened(name))));
  // Along the edges of the cells, so that the line crosses no number; with a light edge, seen on every color.
  const steps = path.slice(1).map(([r, c], i) => `M${x(path[i][1] + 0.5)} ${y(path[i][0] + 1) - 2}L${x(c + 0.5)} ${y(r) + 2}`);
  for (const kind of ["halo", "path"]) {
    made.append(svg("path", { class: kind, d: steps.join("") }));
    for (const [r, c] of path) made.append(svg("rect", { class: kind, x: x(c) + 2, y: y(r) + 2, width: size - 4, height: size - 4 }));
  }
  if (size >= 28) rows.forEach((_, r) => columns.forEach((__, c) => {
    const fill = Number.isNaN(value(r, c)) ? "currentColor" : inkOn(color(palette, share(r, c)));
    made.append(svg("text", { x: x(c + 0.5), y: y(r + 0.5) + 4, fill, "text-anchor": "middle", "font-size": 12 }, text(value(r, c))));
  }));
  if (room) tree.xs.forEach((across, i) => made.append(svg("polyline", {
    class: "tree", points: across.map((join, k) => `${left + width + 6 + join * (room - 10)},${y(tree.ys[i][k])}`).join(" "),
  })));
  const key = Math.max(60, Math.min(160, width));
  made.append(
    svg("image", { x: left, y: top + height + 10, width: key, height: 8, preserveAspectRatio: "none", href: picture(64, 1, (_, c) => color(palette, c / 63)) }),
    svg("text", { x: left, y: top + height + 30, "font-size": 11 }, text(low)),
    svg("text", { x: left + key, y: top + height + 30, "font-size": 11, "text-anchor": "end" }, text(high)),
  );
  host.replaceChildren(made);
  explore(host, {
    nSpots: nRows * nColumns, choose: choose && ((spot) => choose(Math.floor(spot / nColumns), spot % nColumns)),
    said: (spot) => said(Math.floor(spot / nColumns), spot % nColumns),
    ringAround: (spot) => ({ x: x(spot % nColumns), y: y(Math.floor(spot / nColumns)), width: size, height: size }),
    spotAt: (px, py) => {
      const [c, r] = [Math.floor((px - left) / size), Math.floor((py - top) / size)];
      return c >= 0 && r >= 0 && c < nColumns && r < nRows ? r * nColumns + c : null;
    },
    step: (spot, way) => {
      const [r, c] = [Math.floor(spot / nColumns), spot % nColumns];
      const to = { Up: [r - 1, c], Down: [r + 1, c], Left: [r, c - 1], Right: [r, c + 1] }[way];
      return Math.max(0, Math.min(nRows - 1, to[0])) * nColumns + Math.max(0, Math.min(nColumns - 1, to[1]));
    },
  });
};
