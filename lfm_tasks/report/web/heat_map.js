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

// Rows and columns are names; bars are colors beside them, in the order of facets; groups are ranges of places.
const SMALLEST = 2, LARGEST = 46, READABLE = 9, HIGHEST = 640;
const heatMap = (host, drawn) => {
  host.redraw = () => heatMap(host, drawn);
  keepFrame(host);
  const { rows, columns, value, palette = VIRIDIS, low = 0, path = [], unclear = [], tree = null, groups = [], bars: colorOf = null, said, lines, choose } = drawn;
  const nRows = rows.length, nColumns = columns.length;
  let high = drawn.high ?? 1;
  for (let r = 0; r < nRows; r++) for (let c = 0; c < nColumns; c++) if (value(r, c) > high) high = value(r, c);
  const room = roomOf(host), isNarrow = room < 560, most = isNarrow ? 14 : 28;
  const names = (all) => all.map((name) => shortened(name, most));
  const wide = (all, font) => Math.max(0, ...all.map((name) => name.length)) * font * 0.6;
  const [rowNames, columnNames] = [names(rows), names(columns)], bar = colorOf ? 9 : 0;
  const treeRoom = tree?.xs.length ? Math.max(60, Math.min(220, room * 0.2)) : 0;
  // The largest cells that leave room for names and tree; without names where these could not be read.
  const layout = (isNamed) => {
    const left = isNamed ? Math.ceil(wide(rowNames, 13)) + 12 : 4;
    const free = room - left - bar - (treeRoom || (isNamed ? Math.min(60, wide(columnNames, 12) * 0.71) : 0));
    const most = drawn.isOrdered ? Math.min(LARGEST, HIGHEST / nRows) : LARGEST;  // one sees the whole of it
    return { left, size: Math.max(SMALLEST, Math.min(most, Math.floor((free / Math.max(1, nColumns)) * 10) / 10)) };
  };
  const zoom = zoomOf(host), fits = layout(true);
  // Layers in order may have every second or fifth name: a depth axis. Of models a name stands for itself alone.
  const every = drawn.isOrdered ? Math.ceil(READABLE / (fits.size * zoom)) : 1, isNamed = fits.size * zoom * every >= READABLE;
  const { left, size: unzoomed } = isNamed ? fits : layout(false), size = unzoomed * zoom;
  const font = Math.max(READABLE, Math.min(13, size * every)), turned = size < 22 || every > 1 ? 90 : 45;
  const top = (isNamed ? Math.ceil(wide(columnNames, font) * Math.sin((turned * Math.PI) / 180) + font * 0.8) + 12 : 6) + bar + (treeRoom ? 14 : 0);
  const [width, height] = [size * nColumns, size * nRows], x = (c) => left + bar + size * c, y = (r) => top + size * r;
  const share = (r, c) => (value(r, c) - low) / (high - low);
  const total = left + bar + width + (treeRoom || (isNamed && turned === 45 ? Math.min(60, wide(columnNames, font) * 0.71) : 0)) + 4;
  const made = svg("svg", { viewBox: `0 0 ${Math.ceil(Math.max(total, 180))} ${Math.ceil(top + height + 36)}`, "font-size": font, "aria-hidden": "true" });
  made.setAttribute("width", made.viewBox.baseVal.width);
  made.append(svg("image", {
    class: "area", x: x(0), y: top, width, height, preserveAspectRatio: "none",
    href: picture(nColumns, nRows, (r, c) => (Number.isNaN(value(r, c)) ? null : color(palette, share(r, c)))),
  }));
  if (size >= 12) {
    const grid = [];
    for (let r = 1; r < nRows; r++) grid.push(`M${x(0)} ${y(r)}h${width}`);
    for (let c = 1; c < nColumns; c++) grid.push(`M${x(c)} ${top}v${height}`);
    made.append(svg("path", { class: "grid", d: grid.join("") }));
  }
  const missing = [];
  for (let r = 0; r < nRows; r++) for (let c = 0; c < nColumns; c++) if (Number.isNaN(value(r, c))) missing.push(`M${x(c)} ${y(r)}l${size} ${size}`);
  made.append(svg("path", { class: "missing", d: missing.join("") }));
  if (isNamed) {
    rowNames.forEach((name, r) => { if (r % every === 0) made.append(svg("text", { x: left - 5, y: y(r + 0.5) + font / 3, "text-anchor": "end" }, name)); });
    columnNames.forEach((name, c) => {
      const across = turned === 90 ? x(c + 0.5) + font / 3 : x(c + 0.5) + 3;
      if (c % every === 0) made.append(svg("text", { transform: `translate(${across} ${top - bar - 5}) rotate(-${turned})` }, name));
    });
  }
  if (colorOf) {
    for (let r = 0; r < nRows; r++) made.append(svg("rect", { class: "facet", fill: colorOf(r), x: left, y: y(r), width: bar - 2, height: size + 0.3 }));
    for (let c = 0; c < nColumns; c++) made.append(svg("rect", { class: "facet", fill: colorOf(c), x: x(c), y: top - bar, width: size + 0.3, height: bar - 2 }));
  }
  for (const kind of ["halo", "group"]) for (const [from, to] of groups) {
    made.append(svg("rect", { class: kind, x: x(from), y: y(from), width: size * (to - from), height: size * (to - from) }));
  }
  // Along the edges of the cells, so that the line crosses no number; with a light edge, seen on every color.
  const inset = size > 12 ? 2 : 0.5;
  const steps = path.slice(1).map(([r, c], i) => (path[i][0] === r - 1 ? `M${x(path[i][1] + 0.5)} ${y(path[i][0] + 1) - inset}L${x(c + 0.5)} ${y(r) + inset}` : ""));
  for (const kind of ["halo", "path"]) {
    made.append(svg("path", { class: kind, d: steps.join("") }));
    for (const [r, c] of path) made.append(svg("rect", { class: kind, x: x(c) + inset, y: y(r) + inset, width: size - 2 * inset, height: size - 2 * inset }));
  }
  for (const [r, c] of unclear) made.append(svg("circle", { class: "unsure", cx: x(c + 0.5), cy: y(r + 0.5), r: Math.max(1, Math.min(3, size / 5)), transform: size >= 28 ? `translate(0 ${size / 2 - 5})` : "" }));
  if (size >= 28) for (let r = 0; r < nRows; r++) for (let c = 0; c < nColumns; c++) {
    const fill = Number.isNaN(value(r, c)) ? "currentColor" : inkOn(color(palette, share(r, c)));
    made.append(svg("text", { x: x(c + 0.5), y: y(r + 0.5) + 4, fill, "text-anchor": "middle", "font-size": Math.min(12, size / 2.6) }, text(value(r, c))));
  }
  if (treeRoom) drawTree(made, tree, { from: x(0) + width + 6, width: treeRoom - 24, top, bottom: y(nRows), y, groups });
  const key = Math.max(60, Math.min(160, width));
  made.append(
    svg("image", { x: x(0), y: top + height + 10, width: key, height: 8, preserveAspectRatio: "none", href: picture(64, 1, (_, c) => color(palette, c / 63)) }),
    svg("text", { x: x(0), y: top + height + 31, "font-size": 11 }, text(low)),
    svg("text", { x: x(0) + key, y: top + height + 31, "font-size": 11, "text-anchor": "end" }, text(high)),
  );
  host.replaceChildren(made);
  const at = (spot) => [Math.floor(spot / nColumns), spot % nColumns];
  explore(host, {
    nSpots: nRows * nColumns, choose: choose && ((spot) => choose(...at(spot))), said: (spot) => said(...at(spot)),
    lines: lines ? (spot) => lines(...at(spot)) : undefined,
    ringAround: (spot) => ({ x: x(at(spot)[1]), y: y(at(spot)[0]), width: size, height: size }),
    spotAt: (px, py) => {
      const [c, r] = [Math.floor((px - x(0)) / size), Math.floor((py - top) / size)];
      return c >= 0 && r >= 0 && c < nColumns && r < nRows ? r * nColumns + c : null;
    },
    step: (spot, way) => {
      const [r, c] = at(spot), to = { Up: [r - 1, c], Down: [r + 1, c], Left: [r, c - 1], Right: [r, c + 1] }[way];
      return Math.max(0, Math.min(nRows - 1, to[0])) * nColumns + Math.max(0, Math.min(nColumns - 1, to[1]));
    },
  });
};

// The tree of average linkage at the right, the whole of it, with an axis of similarity; a thick bar marks each group.
const drawTree = (made, { xs, ys, height }, { from, width, top, bottom, y, groups }) => {
  const x = (join) => from + 6 + join * (width - 6);
  xs.forEach((across, i) => made.append(svg("polyline", { class: "tree", points: across.map((join, k) => `${x(join).toFixed(1)},${y(ys[i][k]).toFixed(1)}`).join(" ") })));
  for (const [first, last] of groups) made.append(svg("path", { class: "mark-group", d: `M${from + 1} ${y(first) + 1}V${y(last) - 1}` }));
  // The finest step whose numbers stand apart.
  const step = [0.05, 0.1, 0.25, 0.5].find((one) => (one / (height || 1)) * (width - 6) >= 28) ?? 1;
  for (let apart = 0; apart <= height * 1.001; apart += step) {
    const across = x(apart / (height || 1));
    made.append(svg("path", { class: "line", d: `M${across} ${top - 4}V${bottom}` }));
    made.append(svg("text", { x: across, y: top - 7, "font-size": READABLE, "text-anchor": "middle" }, text(1 - apart)));
  }
};
