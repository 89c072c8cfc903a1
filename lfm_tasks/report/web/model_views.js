// Views of models: matrix, nearest, map of the zoo; of two models their layers, matched and against chance.
const shownNow = () => `${choice.measure}, ${choice.statistic === "calibrated" ? "calibrated" : "as measured"}, ${choice.dataset}`;
const interval = (low, high) => (Number.isFinite(low) && Number.isFinite(high) ? `${text(low, 3)} to ${text(high, 3)}` : "–");
// "word value" where there is a value, nothing where it was not computed.
const ifKnown = (word, value, digits = 3) => (Number.isFinite(value) ? [`${word} ${text(value, digits)}`] : []);
const ifInterval = (low, high) => (Number.isFinite(low) ? [`95 % interval ${interval(low, high)}`] : []);
const only = (attribute, known) => {
  for (const part of document.querySelectorAll(`[data-${attribute}]`)) part.hidden = !part.dataset[attribute].split(" ").every((name) => known[name]);
};

// What models are colored by: the values of one key of meta, each with a look of its own.
const kindOf = (model) => (choice.facet ? model.meta[choice.facet] ?? "" : "");
const kindsOf = (models) => [...new Set(models.map(kindOf))].sort(collator.compare)
  .map((name, g) => ({ name: name || `no ${choice.facet || "facet"}`, value: name, ...look(g) }));

const drawModels = ({ models: value, low, high, leastQ }) => {
  const { order, tree, groups } = view(), all = dataset().models;
  const kept = order.filter((m) => isModelFound(all[m])), isWhole = kept.length === order.length;
  const kinds = kindsOf(all), fillOf = (m) => kinds.find((kind) => kind.value === kindOf(all[m])).fill;
  byId("models-filtered").hidden = isWhole;
  byId("models-filtered").textContent = `${kept.length} of ${order.length} models match the search; the tree needs all of them.`;
  byId("models-legend").replaceChildren(...(choice.facet ? [legend(kinds.map((kind) => ({ ...kind, shape: 1 })))] : []));
  byId("models").closest("section").hidden = order.length < 2;
  if (order.length < 2 || leaveOut("models", !kept.length, NO_MODEL)) return;
  if (choice.collapse) { drawKinds(kept, kinds, value); return; }
  const at = (r, c) => value(kept[r], kept[c]), name = (r) => all[kept[r]].name, ordered = kept.map((m) => all[m].name);
  const about = (r) => (choice.facet ? ` (${kindOf(all[kept[r]]) || "–"})` : "");
  heatMap(byId("chart-models"), {
    rows: ordered, columns: ordered, value: at, tree: isWhole ? tree : null, groups: isWhole ? groups : [],
    bars: choice.facet ? (r) => fillOf(kept[r]) : null,
    said: (r, c) => `${name(r)} and ${name(c)}: ${text(at(r, c), 3)}`,
    lines: (r, c) => [
      `${name(r)}${about(r)}`, ...(r === c ? ["with itself"] : [`${name(c)}${about(c)}`]), `similarity ${text(at(r, c), 3)}`,
      ...(r === c || !low ? [] : ifInterval(low(kept[r], kept[c]), high(kept[r], kept[c]))),
      ...(r === c || !leastQ ? [] : ifKnown("smallest q of their layers", leastQ(kept[r], kept[c]), 4)),
    ],
    choose: (r, c) => choosePair(ordered[r], ordered[c]),
  });
  showWhenOpen("table-models", () => table(["Model", ...ordered], ordered.map((model, r) => [model, ...ordered.map((_, c) => text(at(r, c), 3))])));
};
// The matrix of the values of a key: means over the pairs of two different models.
const drawKinds = (kept, kinds, value) => {
  const all = dataset().models, members = kinds.map((kind) => kept.filter((m) => kindOf(all[m]) === kind.value));
  const there = kinds.map((_, k) => k).filter((k) => members[k].length), names = there.map((k) => `${kinds[k].name} (${members[k].length})`);
  const at = (r, c) => {
    const found = members[there[r]].flatMap((a) => members[there[c]].filter((b) => b !== a).map((b) => value(a, b))).filter(Number.isFinite);
    return found.length ? found.reduce((sum, one) => sum + one, 0) / found.length : NaN;
  };
  heatMap(byId("chart-models"), {
    rows: names, columns: names, value: at, bars: (r) => kinds[there[r]].fill,
    said: (r, c) => `${names[r]} and ${names[c]}: ${text(at(r, c), 3)}`,
    lines: (r, c) => [`${choice.facet}: ${names[r]}`, ...(r === c ? [] : [names[c]]), `mean similarity of two models ${text(at(r, c), 3)}`],
    choose: (r) => choose({ collapse: "", find: `${choice.facet}:${kinds[there[r]].value.split(" ")[0]}` }),
  });
  showWhenOpen("table-models", () => table([choice.facet, ...names], names.map((name, r) => [name, ...names.map((_, c) => text(at(r, c), 3))])));
};

const N_NEAREST = 12;
const drawNearest = ({ models: value, low, high, leastQ }) => {
  const { models } = dataset(), source = numberOf(choice.source), number = (of, m) => (of ? of(source, m) : NaN);
  const others = models.map((_, m) => m).filter((m) => m !== source && !Number.isNaN(value(source, m)));
  others.sort((a, b) => value(source, b) - value(source, a) || a - b);
  const matching = others.filter((m) => isModelFound(models[m])), found = matching.length || !isModelFound(models[source]) ? matching : others;
  const rows = found.slice(0, N_NEAREST).map((m) => ({ name: models[m].name, value: value(source, m), low: number(low, m), high: number(high, m), q: number(leastQ, m) }));
  byId("nearest").hidden = !others.length;
  byId("nearest-to").textContent = choice.source;
  if (!others.length || leaveOut("nearest", !found.length, NO_MODEL)) return;
  only("view", { low });
  byId("nearest-unclear").hidden = view().is_clear[source] !== false || found.length < others.length;
  ranges(byId("chart-nearest"), {
    rows, said: (r) => `${rows[r].name}: ${text(rows[r].value, 3)}${low ? `, interval ${interval(rows[r].low, rows[r].high)}` : ""}`,
    lines: (r) => [choice.source, rows[r].name, `similarity ${text(rows[r].value, 3)}`, ...ifInterval(rows[r].low, rows[r].high), ...ifKnown("smallest q of their layers", rows[r].q, 4)],
    choose: (r) => choosePair(choice.source, rows[r].name),
  });
  const ahead = rows.map((row, r) => (r + 1 < rows.length ? row.value - rows[r + 1].value : NaN));
  show("table-nearest", table(
    ["Model", "Similarity", ...(low ? ["Interval"] : []), "Ahead of the next"],
    rows.map((row, r) => [row.name, text(row.value, 3), ...(low ? [interval(row.low, row.high)] : []), text(ahead[r], 3)])));
};

const mostAlike = (m, value) => {
  const all = dataset().models, others = all.map((_, o) => o).filter((o) => o !== m && !Number.isNaN(value(m, o)));
  const best = others.reduce((a, b) => (value(m, b) > value(m, a) ? b : a), others[0]);
  return best === undefined ? [] : [`most alike: ${all[best].name}, ${text(value(m, best), 3)}`];
};
const drawZooMap = ({ models: value }) => {
  const all = dataset().models, { models, at, stress, quality: fit, n_nearest: nNearest } = choice.distance === "shared" ? dataset().shared_map : view().map;
  byId("zoo-stress").textContent = text(stress);
  byId("zoo-none").hidden = Boolean(at);
  byId("part-zoo").hidden = !at;
  byId("stress").textContent = `${text(stress, 3)}, in his words ${fit}`;
  byId("map-nearest").textContent = `For ${nNearest} of ${models.length} models the nearest one here is also the most alike.`;
  const isFound = (m) => isModelFound(all[m]);
  byId("zoo").closest("section").hidden = models.length < 3;
  if (models.length < 3 || leaveOut("zoo", Boolean(at) && !models.some(isFound), NO_MODEL) || !at) return;
  const kinds = kindsOf(models.map((m) => all[m]));
  const groups = [...kinds, ...kinds.map((kind) => ({ ...kind, class: "faded" }))];
  const points = models.map((m, i) => ({
    name: all[m].name, x: at[i][0], y: at[i][1], kind: kinds.findIndex((kind) => kind.value === kindOf(all[m])), isFound: isFound(m),
  })).map((point) => ({ ...point, group: point.kind + (point.isFound ? 0 : kinds.length) }));
  scatter(byId("chart-zoo"), {
    points, groups, width: 640, height: 420, size: 6, mostNamed: 15, legend: choice.facet ? kinds : [],
    said: (i) => `${points[i].name}${choice.facet ? `: ${kinds[points[i].kind].name}` : ""}`,
    lines: (i) => [points[i].name, ...(choice.facet ? [`${choice.facet}: ${kinds[points[i].kind].name}`] : []), ...mostAlike(models[i], value)],
    choose: (i) => choosePair(choice.source, points[i].name),
  });
  showWhenOpen("table-zoo", () => table(
    ["Model", "Right", "Up", choice.facet || "Facet"], points.filter((point) => point.isFound).map(({ name, x, y, kind }) => [name, text(x, 3), text(y, 3), kinds[kind].name])));
};

// The best match of each source layer, in the order of the layers.
const matchedLayers = () => {
  const target = numberOf(choice.target);
  return rowsOf(choice.source).map((row, r) => ({ r, ...matchOf(row, target) })).filter(({ layer }) => layer >= 0);
};
// Whether the page has the numbers of the layers of two models.
const isNear = () => !measured().near || measured().near[numberOf(choice.source)].includes(numberOf(choice.target));
const notNear = () => `The page has the layers of ${choice.source} and the ${measured().near[numberOf(choice.source)].length - 1} models nearest to it. lfm-atlas show ATLAS pair ${choice.source} ${choice.target} prints these.`;
const drawLayers = ({ cells, known }) => {
  const [all, allOthers] = [rowsOf(choice.source), rowsOf(choice.target)];
  if (!isNear() && leaveOut("layers", true, notNear(), false)) return;
  if (leaveOut("layers", ![...all, ...allOthers].some(isSpaceFound), noneOf(choice.source, choice.target))) return;
  const [places, otherPlaces] = [foundPlaces(all), foundPlaces(allOthers)], [sources, targets] = [places.map((r) => all[r]), otherPlaces.map((c) => allOthers[c])];
  const [rows, columns] = [sources, targets].map((of) => of.map((row) => dataset().layers[row])), [short, shortColumns] = [trimmed(rows), trimmed(columns)];
  const found = matchedLayers().map((cell) => ({ ...cell, r: places.indexOf(cell.r), layer: otherPlaces.indexOf(cell.layer) })).filter(({ r, layer }) => r >= 0 && layer >= 0);
  const at = (r, c) => cells(sources[r], targets[c]), number = (name, r, c) => (known[name] ? known[name](sources[r], targets[c]) : NaN);
  const path = found.filter(({ isClear }) => isClear).map(({ r, layer }) => [r, layer]);
  const unclear = found.filter(({ isClear }) => !isClear).map(({ r, layer }) => [r, layer]);
  only("halves", { has: measured().has_halves, none: !measured().has_halves });
  byId("shown-layers").textContent = `${choice.source} → ${choice.target}: ${shownNow()}`;
  const nLeft = all.length * allOthers.length - rows.length * columns.length;
  byId("layers-filtered").hidden = !nLeft;
  byId("layers-filtered").textContent = `${rows.length} of ${all.length} × ${columns.length} of ${allOthers.length} layers match the search.`;
  const left = [leftOut(short), leftOut(shortColumns)];
  byId("layers-left-out").hidden = !left.some(Boolean);
  byId("layers-left-out").textContent = left[0] === left[1] ? `Layers: ${left[0]}` : `Rows: ${left[0] || "whole names"}; columns: ${left[1] || "whole names"}`;
  heatMap(byId("chart-layers"), {
    rows: short.short, columns: shortColumns.short, path, unclear, value: at, isOrdered: rows.length > 12 || columns.length > 12,
    said: (r, c) => `${rows[r]} → ${columns[c]}: ${text(at(r, c), 3)}`,
    lines: (r, c) => [
      `${choice.source}/${rows[r]}`, `${choice.target}/${columns[c]}`, `${choice.measure}, ${choice.statistic === "calibrated" ? "calibrated" : "as measured"} ${text(at(r, c), 3)}`,
      ...(Number.isFinite(number("ci_low", r, c)) ? [`score ${text(number("score", r, c), 3)}, 95 % interval ${interval(number("ci_low", r, c), number("ci_high", r, c))}`] : []),
      ...ifKnown("q", number("q_value", r, c), 4),
    ],
    choose: (r, c) => chooseLayers(rows[r], columns[c]),
  });
  const words = new Map(found.map(({ r, layer, isClear }) => [`${r},${layer}`, isClear ? " ●" : " ○"]));
  showWhenOpen("table-layers", () => table(
    [`${choice.source} → ${choice.target}`, ...columns],
    rows.map((name, r) => [name, ...columns.map((_, c) => text(at(r, c), 3) + (words.get(`${r},${c}`) ?? ""))])));
};

const BESIDE = { score: "Score", null_mean: "Chance", null_q95: "1 in 20 by chance", p_value: "p", q_value: "q" };
const drawMatched = ({ known, diagnostics }) => {
  const matched = matchedLayers(), target = numberOf(choice.target), [sources, targets] = [rowsOf(choice.source), rowsOf(choice.target)];
  const found = matched.filter(({ r, layer }) => isSpaceFound(sources[r]) || isSpaceFound(targets[layer]));
  const [rows, columns] = [layersOf(choice.source), layersOf(choice.target)], [short, shortColumns] = [trimmed(rows).short, trimmed(columns).short];
  byId("chance").hidden = !matched.length || !known.score || !isNear() || choice.source === choice.target;
  if (byId("chance").hidden || leaveOut("chance", !found.length, noneOf(choice.source, choice.target))) return;
  const number = (name, { r, layer }) => (known[name] ? known[name](sources[r], targets[layer]) : NaN);
  const drawn = found.map((cell) => ({
    name: `${short[cell.r]} → ${shortColumns[cell.layer]}`, whole: `${rows[cell.r]} → ${columns[cell.layer]}`, value: number("score", cell),
    low: number("ci_low", cell), high: number("ci_high", cell), chance: number("null_mean", cell), edge: number("null_q95", cell), q: number("q_value", cell),
  }));
  const { ceiling } = measured(), has = { ...mapped(known, Boolean), ceiling: ceiling !== null };
  only("known", has);
  byId("chance-heading").textContent = has.null_mean ? "Matched layers against chance" : "Matched layers";
  byId("ceiling").textContent = text(ceiling, 3);
  byId("shown-chance").textContent = `${choice.source} → ${choice.target}: ${choice.measure}, as measured, ${choice.dataset}`;
  ranges(byId("chart-chance"), {
    rows: drawn, choose: (r) => chooseLayers(rows[found[r].r], columns[found[r].layer]),
    said: (r) => [`${drawn[r].whole}: score ${text(drawn[r].value, 3)}`, ...ifInterval(drawn[r].low, drawn[r].high), ...ifKnown("chance", drawn[r].chance)].join(", "),
    lines: (r) => [
      `${choice.source}/${rows[found[r].r]}`, `${choice.target}/${columns[found[r].layer]}`, `score ${text(drawn[r].value, 3)}`,
      ...ifInterval(drawn[r].low, drawn[r].high), ...ifKnown("chance", drawn[r].chance), ...ifKnown("q", drawn[r].q, 4),
      ...(found[r].isClear ? [] : ["not clearly ahead of the next layer"]),
    ],
  });
  const more = Object.keys(diagnostics), beside = Object.keys(BESIDE).filter((name) => has[name]);
  const columnNames = [
    "Source layer", "Target layer", ...(has.calibrated ? ["Calibrated"] : []), ...(has.ci_low ? ["Interval of the score"] : []),
    ...beside.map((name) => BESIDE[name]), ...more.map((name) => facts.diagnostics[name]), ...(measured().has_halves ? ["Clearly ahead"] : []),
  ];
  show("table-chance", table(columnNames, found.map((cell, i) => [
    rows[cell.r], columns[cell.layer], ...(has.calibrated ? [text(number("calibrated", cell), 3)] : []), ...(has.ci_low ? [interval(drawn[i].low, drawn[i].high)] : []),
    ...beside.map((name) => text(number(name, cell), name === "p_value" || name === "q_value" ? 4 : 3)),
    ...more.map((name) => text(diagnostics[name](sources[cell.r], target), name === "points_found" ? 0 : 3)),
    ...(measured().has_halves ? [cell.isClear ? "yes" : "no"] : []),
  ]), 2));
};
