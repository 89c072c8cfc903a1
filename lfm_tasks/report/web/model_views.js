// Views of models: matrix, nearest, map of the zoo; of two models their layers, matched and against chance.
const shownNow = () => `${choice.measure}, ${choice.statistic}, ${choice.dataset}`;
const interval = (low, high) => (Number.isFinite(low) && Number.isFinite(high) ? `${text(low, 3)} to ${text(high, 3)}` : "–");

const drawModels = ({ models: value }) => {
  const { order, tree } = view(), all = names(dataset().models), ordered = order.map((m) => all[m]);
  const at = (r, c) => value(order[r], order[c]);
  heatMap(byId("chart-models"), {
    rows: ordered, columns: ordered, value: at, tree,
    said: (r, c) => `${ordered[r]} and ${ordered[c]}: ${text(at(r, c), 3)}`,
    choose: (r, c) => choosePair(ordered[r], ordered[c]),
  });
  showWhenOpen("table-models", () => table(["Model", ...ordered], ordered.map((name, r) => [name, ...ordered.map((_, c) => text(at(r, c), 3))])));
};

const N_NEAREST = 12;
const drawNearest = ({ models: value, low, high }) => {
  const { models } = dataset(), source = numberOf(choice.source);
  const others = models.map((_, m) => m).filter((m) => m !== source && !Number.isNaN(value(source, m)));
  others.sort((a, b) => value(source, b) - value(source, a) || a - b);
  const rows = others.slice(0, N_NEAREST).map((m, place) => ({
    name: models[m].name, value: value(source, m), low: low ? low(source, m) : NaN, high: high ? high(source, m) : NaN,
    margin: place + 1 < others.length ? value(source, m) - value(source, others[place + 1]) : NaN,
  }));
  byId("nearest").hidden = !rows.length;
  if (!rows.length) return;
  byId("nearest-to").textContent = choice.source;
  ranges(byId("chart-nearest"), {
    rows, said: (r) => `${rows[r].name}: ${text(rows[r].value, 3)}, interval ${interval(rows[r].low, rows[r].high)}`,
    choose: (r) => choosePair(choice.source, rows[r].name),
  });
  const numbers = rows.map((row) => [row.name, text(row.value, 3), interval(row.low, row.high), text(row.margin, 3)]);
  show("table-nearest", table(["Model", "Similarity", "Interval", "Ahead of the next"], numbers));
};

const drawZooMap = () => {
  const all = dataset().models, { models, at, stress } = choice.distance === "shared" ? dataset().shared_map : view().map;
  const kinds = [...new Set(models.map((m) => all[m].meta[choice.facet] ?? ""))].sort(new Intl.Collator("en", { numeric: true }).compare);
  const groups = kinds.map((name, g) => ({ name: name || `no ${choice.facet || "facet"}`, ...look(g) }));
  const kindOf = (m) => all[m].meta[choice.facet] ?? "";
  const points = models.map((m, i) => ({ name: all[m].name, x: at[i][0], y: at[i][1], group: kinds.indexOf(kindOf(m)) }));
  scatter(byId("chart-zoo"), {
    points, groups, width: 640, height: 420, size: 6, isNamed: true, isLegend: Boolean(choice.facet),
    said: (i) => `${points[i].name}${choice.facet ? `: ${groups[points[i].group].name}` : ""}`,
    choose: (i) => choosePair(choice.source, points[i].name),
  });
  byId("stress").textContent = text(stress, 3);
  showWhenOpen("table-zoo", () => table(
    ["Model", "Right", "Up", choice.facet || "Facet"], points.map(({ name, x, y, group }) => [name, text(x, 3), text(y, 3), groups[group].name])));
};

// The best match of each source layer, in the order of the layers.
const matchedPath = () => {
  const target = numberOf(choice.target);
  return rowsOf(choice.source).map((row, r) => [r, measured().matches[row][target]]).filter(([, c]) => c >= 0);
};
const drawLayers = ({ cells }) => {
  const [sources, targets] = [rowsOf(choice.source), rowsOf(choice.target)];
  const [rows, columns] = [layersOf(choice.source), layersOf(choice.target)];
  const path = matchedPath(), at = (r, c) => cells(sources[r], targets[c]);
  byId("shown-layers").textContent = `${choice.source} → ${choice.target}: ${shownNow()}`;
  heatMap(byId("chart-layers"), {
    rows, columns, path, value: at,
    said: (r, c) => `${rows[r]} → ${columns[c]}: ${text(at(r, c), 3)}`,
    choose: (r, c) => chooseLayers(rows[r], columns[c]),
  });
  const matched = new Set(path.map(String));
  showWhenOpen("table-layers", () => table(
    [`${choice.source} → ${choice.target}`, ...columns],
    rows.map((name, r) => [name, ...columns.map((_, c) => text(at(r, c), 3) + (matched.has(`${r},${c}`) ? " ●" : ""))])));
};

const BESIDE = { score: "Score", null_mean: "Chance", null_q95: "1 in 20 by chance", p_value: "p" };
const drawMatched = ({ known, diagnostics }) => {
  const path = matchedPath(), [sources, targets] = [rowsOf(choice.source), rowsOf(choice.target)];
  const [rows, columns] = [layersOf(choice.source), layersOf(choice.target)];
  byId("chance").hidden = !path.length || !known.score;
  if (byId("chance").hidden) return;
  const number = (value, [r, c]) => (value ? value(sources[r], targets[c]) : NaN);
  const ends = (cell) => [number(known.ci_low, cell), number(known.ci_high, cell)];
  const drawn = path.map((cell) => ({
    name: `${rows[cell[0]]} → ${columns[cell[1]]}`, value: number(known.score, cell), low: ends(cell)[0], high: ends(cell)[1],
    chance: number(known.null_mean, cell), edge: number(known.null_q95, cell),
  }));
  const { ceiling } = measured();
  byId("ceiling").textContent = ceiling === null ? "not computed" : text(ceiling, 3);
  byId("shown-chance").textContent = `${choice.source} → ${choice.target}: ${choice.measure}, as measured, ${choice.dataset}`;
  ranges(byId("chart-chance"), {
    rows: drawn, choose: (r) => chooseLayers(rows[path[r][0]], columns[path[r][1]]),
    said: (r) => `${drawn[r].name}: score ${text(drawn[r].value, 3)}, interval ${interval(drawn[r].low, drawn[r].high)}, chance ${text(drawn[r].chance, 3)}`,
  });
  const found = Object.keys(diagnostics), columnNames = ["Source layer", "Target layer", "Calibrated", "Interval of the score", ...Object.values(BESIDE), ...found.map((name) => facts.diagnostics[name])];
  show("table-chance", table(columnNames, path.map((cell) => [
    rows[cell[0]], columns[cell[1]], text(number(known.calibrated, cell), 3), interval(...ends(cell)),
    ...Object.keys(BESIDE).map((name) => text(number(known[name], cell), name === "p_value" ? 4 : 3)),
    ...found.map((name) => text(number(diagnostics[name], cell), name === "points_found" ? 0 : 3)),
  ]), 2));
};
