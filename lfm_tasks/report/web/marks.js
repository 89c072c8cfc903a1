// Marks: points in the plane, ranges on a line, bars. A group has a color and a shape.
const COLORS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#666666"];
// Corners around (0, 0), about as large as a circle of radius 1; the circle has none.
const SHAPES = [
  [], [-0.9, -0.9, 0.9, -0.9, 0.9, 0.9, -0.9, 0.9], [0, -1.2, 1.1, 0.8, -1.1, 0.8], [0, -1.3, 1.3, 0, 0, 1.3, -1.3, 0],
  [0, 1.2, 1.1, -0.8, -1.1, -0.8], [-0.4, -1.2, 0.4, -1.2, 0.4, -0.4, 1.2, -0.4, 1.2, 0.4, 0.4, 0.4, 0.4, 1.2, -0.4, 1.2, -0.4, 0.4, -1.2, 0.4, -1.2, -0.4, -0.4, -0.4],
  [-1.2, 0, -0.6, -1, 0.6, -1, 1.2, 0, 0.6, 1, -0.6, 1], [-1, -1, 0, -0.5, 1, -1, 0.5, 0, 1, 1, 0, 0.5, -1, 1, -0.5, 0],
];
const sized = (shape, size, x, y) => {
  const corners = SHAPES[shape], d = [];
  if (!corners.length) return `M${(x - size).toFixed(1)} ${y.toFixed(1)}a${size} ${size} 0 1 0 ${2 * size} 0a${size} ${size} 0 1 0 ${-2 * size} 0z`;
  for (let i = 0; i < corners.length; i += 2) d.push(`${(x + size * corners[i]).toFixed(1)} ${(y + size * corners[i + 1]).toFixed(1)}`);
  return `M${d.join("L")}z`;
};
// Eight colors and eight shapes: shapes move on by one with each round of colors, so that 64 groups differ.
const look = (g) => ({ fill: COLORS[g % 8], shape: (g + Math.floor(g / 8)) % 8 });

const legend = (groups) => html("ul", { class: "legend" }, ...groups.map(({ name, fill, shape, size = 5 }) => html("li", {},
  svg("svg", { width: 16, height: 16, viewBox: "-8 -8 16 16", "aria-hidden": "true" }, svg("path", { class: "mark", fill, d: sized(shape, size, 0, 0) })), name)));

const scatter = (host, drawn) => {
  const { points, groups, size = 5, mostNamed = 0, said, lines, choose } = drawn;
  host.redraw = () => scatter(host, drawn);
  keepFrame(host);
  const zoom = zoomOf(host), width = zoom * Math.min(drawn.width, roomOf(host)), height = zoom * drawn.height, isNamed = points.length <= mostNamed * zoom ** 2, pad = isNamed ? Math.min(90, width / 6) : 12;
  const [xs, ys] = ["x", "y"].map((axis) => points.map((point) => point[axis]));
  const [left, low] = [Math.min(...xs), Math.min(...ys)];
  // One scale for both axes: distances are what is read.
  const scale = Math.min((width - 2 * pad) / (Math.max(...xs) - left || 1), (height - 40) / (Math.max(...ys) - low || 1));
  const [free, over] = [(width - scale * (Math.max(...xs) - left)) / 2, (height - scale * (Math.max(...ys) - low)) / 2];
  const at = points.map(({ x, y }) => [free + scale * (x - left), height - over - scale * (y - low)]);
  const made = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, "font-size": 12, "aria-hidden": "true" });
  made.append(svg("rect", { class: "frame area", x: 0.5, y: 0.5, width: width - 1, height: height - 1 }));
  groups.forEach(({ fill, shape, size: own = size, class: kind = "" }, g) => {
    const d = points.map((point, i) => (point.group === g ? sized(shape, own, ...at[i]) : "")).join("");
    if (d) made.append(svg("path", { class: `${own < 4 ? "mark small" : "mark"} ${kind}`, fill, d }));
  });
  if (isNamed) placeNames(made, points, at, size);
  const named = drawn.legend ?? groups.filter((_, g) => points.some(({ group }) => group === g));
  host.replaceChildren(made, ...(named.length ? [legend(named)] : []));
  explore(host, {
    nSpots: points.length, said, lines, choose, step: inLine(points.length),
    ringAround: (spot) => ({ x: at[spot][0] - size - 4, y: at[spot][1] - size - 4, width: 2 * size + 8, height: 2 * size + 8, rx: size + 4 }),
    spotAt: (px, py) => {
      let best = null, least = 15 ** 2;
      at.forEach(([x, y], i) => { const d = (x - px) ** 2 + (y - py) ** 2; if (d < least) [best, least] = [i, d]; });
      return best;
    },
  });
};

// Beside a mark, above, below, then further off.
const AROUND = [
  [9, 4, "start"], [-9, 4, "end"], [0, -9, "middle"], [0, 18, "middle"],
  [8, -9, "start"], [-8, -9, "end"], [8, 18, "start"], [-8, 18, "end"], [0, -24, "middle"], [0, 33, "middle"],
];
// Names that would lie on another name or mark are left out; pointing, arrow keys and the table still say them.
const placeNames = (made, points, at, size) => {
  const taken = at.map(([x, y]) => [x - size, y - size, x + size, y + size]);
  const { width, height } = made.viewBox.baseVal;
  points.forEach(({ name }, i) => {
    const [x, y] = at[i], long = shortened(name).length * 6.6;
    for (const [dx, dy, anchor] of AROUND) {
      const from = x + dx - { start: 0, middle: long / 2, end: long }[anchor];
      const box = [from, y + dy - 11, from + long, y + dy + 3];
      if (box[0] < 0 || box[1] < 0 || box[2] > width || box[3] > height) continue;
      if (taken.some((other) => box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3])) continue;
      taken.push(box);
      made.append(svg("text", { x: x + dx, y: y + dy, "text-anchor": anchor }, shortened(name)));
      return;
    }
  });
};

// Each row: a dot for the value, a bar for its interval, a diamond for chance, a tick that 1 in 20 permutations beats.
const ranges = (host, drawn) => {
  const { rows, said, lines, choose } = drawn;
  host.redraw = () => ranges(host, drawn);
  const most = roomOf(host) < 560 ? 18 : 40, named = (name) => shortened(name, most);
  const all = rows.flatMap(({ value, low, high, chance, edge }) => [value, low, high, chance, edge]).filter(Number.isFinite);
  const [least, highest] = [Math.min(0, ...all), Math.max(1, ...all)], isDense = rows.length > 24;
  const left = Math.max(...rows.map(({ name }) => named(name).length)) * 8.2 + 16, step = isDense ? 16 : 24;
  const width = Math.max(80, Math.min(420, roomOf(host) - left - 62));
  const x = (value) => left + ((value - least) / (highest - least)) * width;
  const bottom = step * rows.length + 8;
  const made = svg("svg", { viewBox: `0 0 ${left + width + 60} ${bottom + 24}`, width: left + width + 60, "font-size": 13, "aria-hidden": "true" });
  for (const tick of [least, (least + highest) / 2, highest]) {
    made.append(svg("path", { class: "line", d: `M${x(tick)} 4V${bottom}` }), svg("text", { x: x(tick), y: bottom + 16, "text-anchor": "middle", "font-size": 11 }, text(tick)));
  }
  rows.forEach(({ name, value, low, high, chance, edge }, r) => {
    const y = step * (r + 0.5) + 4;
    made.append(svg("text", { x: left - 8, y: y + 4, "text-anchor": "end", "font-size": isDense ? 11 : 13 }, named(name)));
    if (Number.isFinite(low) && Number.isFinite(high)) made.append(svg("path", { class: "interval", d: `M${x(low)} ${y}H${x(high)}M${x(low)} ${y - 4}v8M${x(high)} ${y - 4}v8` }));
    if (Number.isFinite(chance)) made.append(svg("path", { class: "chance", d: sized(3, 4, x(chance), y) }));
    if (Number.isFinite(edge)) made.append(svg("path", { class: "edge", d: `M${x(edge)} ${y - 7}v14` }));
    if (Number.isFinite(value)) made.append(svg("circle", { class: "dot", cx: x(value), cy: y, r: isDense ? 4 : 5 }));
    made.append(svg("text", { x: left + width + 10, y: y + 4, "font-size": isDense ? 11 : 13 }, text(value, 3)));
  });
  host.replaceChildren(made);
  explore(host, {
    nSpots: rows.length, said, lines, choose, step: inLine(rows.length),
    ringAround: (spot) => ({ x: 1, y: step * spot + 4, width: left + width + 58, height: step }),
    spotAt: (_, py) => { const row = Math.floor((py - 4) / step); return row >= 0 && row < rows.length ? row : null; },
  });
};

// Two bars a row, the first filled, the second in outline; values far below ``least`` look as small as they are.
const bars = (host, drawn) => {
  const { rows, said } = drawn;
  host.redraw = () => bars(host, drawn);
  const most = Math.max(drawn.least, ...rows.flatMap(({ values }) => values).filter(Number.isFinite));
  const left = Math.max(...rows.map(({ name }) => shortened(name, 20).length)) * 8.2 + 16, step = 34;
  const width = Math.max(60, Math.min(360, roomOf(host) - left - 62));
  const made = svg("svg", { viewBox: `0 0 ${left + width + 60} ${step * rows.length + 8}`, width: left + width + 60, "font-size": 13, "aria-hidden": "true" });
  rows.forEach(({ name, values }, r) => {
    made.append(svg("text", { x: left - 8, y: step * (r + 0.5) + 6, "text-anchor": "end" }, shortened(name, 20)));
    values.forEach((value, v) => {
      const long = Number.isFinite(value) ? (value / most) * width : 0, y = step * r + 5 + 13 * v;
      made.append(svg("rect", { class: v ? "bar outline" : "bar", x: left, y, width: long, height: 11 }), svg("text", { x: left + long + 6, y: y + 10, "font-size": 11 }, text(value, 3)));
    });
  });
  host.replaceChildren(made);
  explore(host, {
    nSpots: rows.length, said, step: inLine(rows.length),
    ringAround: (spot) => ({ x: 1, y: step * spot + 2, width: left + width + 58, height: step }),
    spotAt: (_, py) => { const row = Math.floor((py - 2) / step); return row >= 0 && row < rows.length ? row : null; },
  });
};
