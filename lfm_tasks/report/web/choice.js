// The choice: what the page shows, by name; it stands in the address, so that a link shows what its sender saw.
const choice = {};
const names = (list) => list.map(({ name }) => name);
const named = (list, name) => list.find((entry) => entry.name === name);
const dataset = () => named(facts.datasets, choice.dataset);
const measured = () => facts.views[names(facts.datasets).indexOf(choice.dataset)][names(facts.measures).indexOf(choice.measure)];
const view = () => measured().views[choice.statistic];
const numberOf = (model) => names(dataset().models).indexOf(model);
const rowsOf = (model) => named(dataset().models, model).rows;
const layersOf = (model) => rowsOf(model).map((row) => dataset().layers[row]);
const rowOf = (side) => rowsOf(choice[side])[Math.max(0, layersOf(choice[side]).indexOf(choice[`${side}_layer`]))];
const OTHER = { source: "target", target: "source" };
// Where a pair is among kept ones; turned around where the map back is the same map read the other way.
const pairIn = (kept, source, target) => {
  const at = (from, to) => kept?.pairs.findIndex(([s, t]) => s === from && t === to) ?? -1;
  const straight = at(source, target), turned = kept?.turns ? at(target, source) : -1;
  if (straight >= 0) return { pair: straight, isTurned: false, side: (side) => side };
  return turned >= 0 ? { pair: turned, isTurned: true, side: (side) => OTHER[side] } : null;
};

// The match of a space in a model, and whether each half of the points has the same.
let matchesShown = () => -1;
const matchOf = (row, model, of = matchesShown) => {
  const stored = of(row, model);
  return stored <= -2 ? { layer: -2 - stored, isClear: false } : { layer: stored, isClear: true };
};

// A page that is opened without a choice shows two related models; a model by itself stands beside its nearest.
const nearest = async () => {
  const others = names(dataset().models).filter((name) => name !== choice.source);
  const [first, second] = dataset().opens_with;
  if (choice.source === first) return second;
  if (!view()) return others[0] ?? choice.source;
  const value = await matrix(view().models), source = numberOf(choice.source);
  const likeness = (name) => { const v = value(source, numberOf(name)); return Number.isNaN(v) ? -Infinity : v; };
  return others.sort((a, b) => likeness(b) - likeness(a))[0] ?? choice.source;
};
// Of two models the first layers that match and have a kept map, else any that have one, else the first that match.
const firstLayers = async () => {
  const match = await matrix(measured().matches), [sources, targets] = [rowsOf(choice.source), rowsOf(choice.target)], target = numberOf(choice.target);
  const matched = sources.map((row) => [row, targets[Math.max(0, matchOf(row, target, match).layer)]]);
  const { maps } = dataset();
  return matched.find(([s, t]) => s !== t && pairIn(maps, s, t))
    ?? sources.flatMap((s) => targets.map((t) => [s, t])).find(([s, t]) => pairIn(maps, s, t)) ?? matched[0];
};
// A facet that parts the models, but not into ones.
const firstFacet = () => {
  const { models } = dataset();
  const kinds = (facet) => new Set(models.map(({ meta }) => meta[facet] ?? "")).size;
  return facts.facets.find((facet) => kinds(facet) > 1 && kinds(facet) < models.length) ?? "";
};

// In the order in which one limits the next: what is offered, and what is taken when the address says nothing of it.
const controls = {
  dataset: { offered: () => names(facts.datasets), first: () => facts.datasets[0].name },
  measure: { offered: () => names(facts.measures), first: () => facts.default_measure },
  statistic: { offered: () => names(facts.statistics).filter((name) => Object.hasOwn(measured().views, name)), first: () => names(facts.statistics).find((name) => measured().views[name]) },
  source: { offered: () => names(dataset().models), first: () => dataset().opens_with[0] ?? dataset().models[0].name },
  target: { offered: () => names(dataset().models), first: nearest },
  source_layer: { offered: () => layersOf(choice.source), first: async () => dataset().layers[(await firstLayers())[0]] },
  target_layer: { offered: () => layersOf(choice.target), first: async () => dataset().layers[(await firstLayers())[1]] },
  facet: { offered: () => ["", ...facts.facets], first: firstFacet },
  collapse: { offered: () => ["", ...(choice.facet ? ["yes"] : [])], first: () => "" },
  distance: { offered: () => ["similarity", ...(dataset().shared_map ? ["shared"] : [])], first: () => "similarity" },
};
const WORDS = {
  facet: (name) => name || "none",
  statistic: (name) => named(facts.statistics, name).meaning,
  distance: (name) => ({ similarity: "1 − similarity", shared: "in the shared embedding" })[name],
};

// Whatever is not offered gives way to what is.
const settle = async () => {
  for (const [control, { offered, first }] of Object.entries(controls)) {
    if (!offered().includes(choice[control])) choice[control] = await first();
  }
};
const fillControls = () => {
  for (const [control, { offered }] of Object.entries(controls)) {
    const element = byId(control), word = WORDS[control] ?? ((name) => name);
    if (!element) continue;
    const label = element.closest("label");
    if (element.type === "checkbox") {
      element.checked = Boolean(choice[control]);
      label.hidden = offered().length < 2;
      continue;
    }
    const options = () => offered().map((name) => Object.assign(html("option", {}, word(name)), { value: name }));
    if (element.tagName === "SELECT") element.replaceChildren(...options());
    else if (element.list.offered !== choice.dataset) {
      element.list.replaceChildren(...options());
      element.list.offered = choice.dataset;
    }
    element.value = choice[control];
    label.hidden = offered().length < 2 && ["dataset", "distance", "measure", "statistic", "facet"].includes(control);
  }
  byId("find").value = choice.find ?? "";
};
const remember = () => {
  const state = new URLSearchParams(Object.entries(choice).filter(([, name]) => name !== undefined && name !== ""));
  if (choice.facet === "") state.set("facet", "");  // no color is a choice, too
  history.replaceState(null, "", `#${state}`);
};
const recall = () => {
  const state = new URLSearchParams(location.hash.slice(1));
  for (const control of Object.keys(controls)) {
    delete choice[control];
    if (state.has(control)) choice[control] = state.get(control);
  }
  choice.find = state.get("find") ?? "";
  return state.get("part");
};
