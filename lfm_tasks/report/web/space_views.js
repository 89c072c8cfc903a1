// Views of two spaces: the functional map between them, where they differ, both as pictures in the plane.
const modelAt = (row) => dataset().models.find(({ rows }) => rows[0] <= row && row <= rows.at(-1));
const modelOf = (row) => modelAt(row).name;
const spaceName = (row) => `${modelOf(row)}/${dataset().layers[row]}`;
const shownSpaces = () => [spaceName(rowOf("source")), spaceName(rowOf("target"))];
const toggled = (id, isThere) => { if (byId(id)) byId(id).hidden = !isThere; return Boolean(byId(id)) && isThere; };

// Pairs to jump to: those of the source's model, any where it has none; where these are too many, of both models.
const MOST_OFFERED = 100;
const offerPairs = (id, all) => {
  const select = byId(id), of = (side) => new Set(rowsOf(choice[side])), isFound = new Map(dataset().layers.map((_, row) => [row, isSpaceFound(row)]));
  const pairs = all.filter(([source, target]) => isFound.get(source) || isFound.get(target));
  let near = pairs.filter(([source]) => of("source").has(source));
  if (near.length > MOST_OFFERED) near = near.filter(([, target]) => of("target").has(target));
  if (!near.length) near = pairs;
  const option = ([source, target], i) => Object.assign(html("option", {}, `${spaceName(source)} → ${spaceName(target)}`), { value: i });
  select.replaceChildren(Object.assign(html("option", {}, "choose a pair"), { value: "" }), ...near.slice(0, MOST_OFFERED).map(option));
  const now = near.findIndex(([s, t]) => s === rowOf("source") && t === rowOf("target"));
  select.value = now < 0 ? "" : String(now);
  select.onchange = () => {
    if (!select.value) return;
    const [[source, source_layer], [target, target_layer]] = near[Number(select.value)].map((row) => [modelOf(row), dataset().layers[row]]);
    chooseSpaces({ source, target, source_layer, target_layer });
  };
};

const drawFunctionalMap = ({ maps, ofMaps, cells, known }) => {
  const kept = dataset().maps;
  if (!toggled("functional", Boolean(kept)) || leaveOut("functional", !isPairFound(), noneOf(...shownSpaces()))) return;
  const [source, target] = [rowOf("source"), rowOf("target")], found = pairIn(kept, source, target);
  offerPairs("kept_pair", kept.pairs);
  const shown = `${spaceName(source)} → ${spaceName(target)}`;
  byId("shown-functional").textContent = shown;
  byId("functional-missing").hidden = Boolean(found);
  byId("functional-shown").hidden = !found;
  if (!found) return;
  const { pair, isTurned } = found, [n, m] = isTurned ? [...kept.drawn].reverse() : kept.drawn;
  const at = (r, c) => maps(pair, isTurned ? c * n + r : r * m + c);
  const numbers = (count) => Array.from({ length: count }, (_, i) => String(i));
  let most = 0;
  for (let i = 0; i < n * m; i++) most = Math.max(most, Math.abs(maps(pair, i)));
  heatMap(byId("chart-functional"), {
    rows: numbers(n), columns: numbers(m), isOrdered: true, value: at, palette: BLUE_WHITE_RED, low: -most || -1, high: most || 1,
    said: (r, c) => `target eigenvector ${r}, source eigenvector ${c}: ${text(at(r, c), 3)}`,
  });
  const lines = [
    ["On the diagonal, of |C|²", text(kept.on_diagonal[pair], 3)],
    ...Object.entries(facts.diagnostics).filter(([name]) => ofMaps[name]).map(([name, word]) => [word, text(ofMaps[name](pair, Number(isTurned)), name === "points_found" ? 0 : 4)]),
    [`${choice.measure}, ${choice.statistic === "calibrated" ? "calibrated" : "as measured"}`, text(cells(source, target), 3)],
    ...(known.score && choice.statistic !== "score" ? [[`${choice.measure}, as measured`, text(known.score(source, target), 3)]] : []),
  ];
  show("table-functional", table(["Diagnostic", "Value"], lines));
  showWhenOpen("table-entries", () => table(["Target eigenvector", ...numbers(m)], numbers(n).map((name, r) => [name, ...numbers(m).map((_, c) => text(at(r, Number(c)), 2))])));
};

// Whether any point has a distortion that three decimals show.
const differ = ({ pair, side }, worst) => !["source", "target"].every((end) => worst[side(end)](pair, 0) < 0.0005);
const drawDistortion = ({ ofClass, means, worst }) => {
  const kept = dataset().maps;
  if (!toggled("distortion", Boolean(kept)) || leaveOut("distortion", !isPairFound(), noneOf(...shownSpaces()))) return;
  const [source, target] = [rowOf("source"), rowOf("target")], found = pairIn(kept, source, target);
  byId("shown-distortion").textContent = `${spaceName(source)} → ${spaceName(target)}`;
  byId("distortion-missing").hidden = Boolean(found);
  byId("distortion-none").hidden = !found || differ(found, worst);
  byId("distortion-shown").hidden = !found || !differ(found, worst);
  if (byId("distortion-shown").hidden) return;
  const { pair, side: storedAs } = found;
  const { labels, n_points: counts, points, point_labels: pointLabels } = kept.distortion;
  const sides = ["target", "source"], overall = { name: "all points", values: sides.map((side) => means[storedAs(side)](pair, 0)) };
  const classes = labels.map((name, l) => ({ name, values: sides.map((side) => ofClass[storedAs(side)](pair, l)), count: counts[l] }));
  classes.sort((a, b) => (b.values[0] || 0) - (a.values[0] || 0));
  const rows = [overall, ...classes];
  bars(byId("chart-distortion"), { rows, least: 0.1, said: (r) => `${rows[r].name}: target ${text(rows[r].values[0], 3)}, source ${text(rows[r].values[1], 3)}` });
  show("table-distortion", table(["Class", "Points", "Target", "Source"], rows.map(({ name, values, count }) => [name, String(count ?? "–"), ...values.map((value) => text(value, 3))])));
  const first = (side, i) => {
    const point = kept.distortion[storedAs(side)].worst[pair][i];
    if (point === undefined) return ["–", "–", "–"];
    return [points[point], pointLabels[point] || "–", text(worst[storedAs(side)](pair, i), 3)];
  };
  const longest = Math.max(...sides.map((side) => kept.distortion[storedAs(side)].worst[pair].length));
  show("table-worst", table(
    ["Rank", "Target point", "Class", "Distortion", "Source point", "Class", "Distortion"],
    Array.from({ length: longest }, (_, i) => [String(i + 1), ...first("target", i), ...first("source", i)])));
};

const N_LEVELS = 6;
const drawEmbeddings = ({ x, y, onPoints, after }) => {
  const kept = dataset().embeddings;
  if (!toggled("embeddings", Boolean(kept)) || leaveOut("embeddings", !isPairFound(), noneOf(...shownSpaces()))) return;
  const ends = { source: rowOf("source"), target: rowOf("target") };
  const found = pairIn(kept.distortion, ends.source, ends.target);
  offerPairs("embedded_pair", kept.distortion?.pairs ?? kept.spaces.flatMap((s) => kept.spaces.filter((t) => t !== s).map((t) => [s, t])));
  const classes = kept.labels.map((name, g) => ({ name, ...look(g) })), unlabeled = { name: "no class", ...look(classes.length) };
  for (const side of ["source", "target"]) {
    const place = kept.spaces.indexOf(ends[side]), isThere = place >= 0;
    byId(`shown-${side}`).textContent = spaceName(ends[side]) + (isThere ? "" : ": no embedding in this atlas");
    byId(`chart-${side}-class`).hidden = !isThere;
    byId(`table-${side}-points`).closest("details").hidden = !isThere;
    byId(`part-${side}-distortion`).hidden = !isThere || !found;
    if (!isThere) continue;
    const here = kept.points.map((_, p) => p).filter((p) => !Number.isNaN(x(place, p)));
    const word = (p) => kept.labels[kept.label[p]] ?? "no class";
    const points = here.map((p) => ({ name: kept.points[p], x: x(place, p), y: y(place, p), group: kept.label[p] < 0 ? classes.length : kept.label[p] }));
    const drawn = { width: 400, height: 340, size: 3.5, said: (i) => `${points[i].name}: ${word(here[i])}` };
    scatter(byId(`chart-${side}-class`), { ...drawn, points, groups: [...classes, unlabeled] });
    const onPoint = (p) => (found ? onPoints[found.side(side)](found.pair, p) : NaN);
    if (found) drawOnPoints(side, here, points, onPoint, drawn);
    const distortion = (p) => { const value = onPoint(p); return value < 0 ? NaN : value; };
    showWhenOpen(`table-${side}-points`, () => table(
      ["Point", "Class", "Right", "Up", "Distortion"],
      points.map((point, i) => [point.name, word(here[i]), text(point.x, 2), text(point.y, 2), text(distortion(here[i]), 3)]), 2));
  }
  drawProbes(kept, ends, after);
};
// Larger and yellower marks differ more; what has no value is a small diamond.
const drawOnPoints = (side, here, points, value, drawn) => {
  const most = Math.max(1e-9, ...here.map(value)), level = (v) => (v < 0 ? N_LEVELS : Math.min(N_LEVELS - 1, Math.floor((v / most) * N_LEVELS)));
  const groups = Array.from({ length: N_LEVELS }, (_, l) => ({
    name: `${text((most * l) / N_LEVELS)} to ${text((most * (l + 1)) / N_LEVELS)}`, shape: 0, size: 2 + 0.8 * l,
    fill: `rgb(${color(VIRIDIS, l / (N_LEVELS - 1)).join(" ")})`,
  }));
  scatter(byId(`chart-${side}-distortion`), {
    ...drawn, groups: [...groups, { name: "no value", shape: 3, size: 2.5, fill: "none" }],
    points: points.map((point, i) => ({ ...point, group: level(value(here[i])) })),
    said: (i) => `${drawn.said(i)}, distortion ${text(value(here[i]), 3)}`,
  });
};
const drawProbes = (kept, { source, target }, after) => {
  byId("probes").hidden = !kept.probe && !after;
  byId("no-probe").hidden = !kept.no_probe;
  byId("no-probe").textContent = `No linear probes: ${kept.no_probe}`;
  const own = (row) => text(kept.probe?.[kept.spaces.indexOf(row)] ?? NaN, 3);
  show("table-probes", table(["Linear probe", "Accuracy"], [
    [`of ${spaceName(source)}, on its own points`, own(source)],
    [`of ${spaceName(target)}, on its own points`, own(target)],
    [`of ${spaceName(target)}, on points carried over from ${spaceName(source)}`, text(after ? after(source, target) : NaN, 3)],
  ]));
};
