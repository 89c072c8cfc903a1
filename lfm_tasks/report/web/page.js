// The page: what is chosen is loaded, then drawn; only the last choice counts.
const load = async () => {
  const { models, low, high } = view();
  const { maps, embeddings } = dataset();
  const sides = (pack) => together({ source: pack("source"), target: pack("target") });
  const known = await loadKnown(measured());
  return together({
    known, cells: known[choice.statistic], leastQ: matrix(measured().least_q), models: matrix(models), low: matrix(low), high: matrix(high),
    matches: matrix(measured().matches), diagnostics: together(mapped(measured().diagnostics, matrix)), ofMaps: together(mapped(maps?.diagnostics ?? {}, matrix)),
    maps: entries(maps?.maps), ofClass: sides((side) => matrix(maps?.distortion[side].by_class)),
    means: sides((side) => matrix(maps?.distortion[side].mean)), worst: sides((side) => matrix(maps?.distortion[side].worst_values)),
    x: matrix(embeddings?.x), y: matrix(embeddings?.y), after: matrix(embeddings?.after),
    onPoints: sides((side) => entries(embeddings?.distortion?.[side])),
  });
};
// Some matrices are stored as what they are above another one: also above the calibration of the rounded score, and
// above the place that is as far above the score as the lower end of the interval is below.
const loadKnown = async ({ known, near }) => {
  const place = columnsOf(near);
  const loaded = mapped(await together(mapped(known, matrix)), (number) => (r, c) => { const at = place(r, c); return at < 0 ? NaN : number(r, at); }), best = named(facts.measures, choice.measure).is_distance ? 0 : 1;
  const calibration = (r, c) => {
    const chance = loaded.null_mean?.(r, c), found = (loaded.score(r, c) - chance) / (best - chance);
    return Number.isFinite(found) ? found : 0;
  };
  const mirrored = (r, c) => loaded.score(r, c) - loaded.ci_low(r, c);  // which is stored as what it is above the score
  const above = { calibration, mirrored, ...loaded };
  return mapped(known, ({ from }, name) => (from ? (r, c) => above[from](r, c) + loaded[name](r, c) : loaded[name]));
};
// Of very many spaces the page has the numbers of each model with those nearest to it: their layers stand side by side.
const columnsOf = (near) => {
  if (!near) return (r, c) => c;
  const { models } = dataset(), modelOf = models.flatMap(({ rows }, model) => rows.map(() => model));
  const starts = near.map((others) => {
    let at = 0;
    return new Map(others.map((other) => { at += models[other].rows.length; return [other, at - models[other].rows.length]; }));
  });
  return (r, c) => {
    const start = starts[modelOf[r]].get(modelOf[c]);
    return start === undefined ? -1 : start + c - models[modelOf[c]].rows[0];
  };
};
const mapped = (object, change) => Object.fromEntries(Object.entries(object).map(([name, value]) => [name, change(value, name)]));

let turn = 0;
const redraw = async () => {
  const own = ++turn;
  await settle();
  const loaded = view() ? await load() : null;
  if (own !== turn) return;
  fillControls();
  byId("charts").hidden = !loaded;
  byId("no-numbers").hidden = Boolean(loaded);
  filterTables();
  byId("convention").textContent = named(facts.measures, choice.measure).convention;
  if (loaded) {
    matchesShown = loaded.matches;
    byId("shown-models").textContent = shownNow();
    for (const draw of [drawModels, drawNearest, drawZooMap, drawLayers, drawMatched, drawFunctionalMap, drawDistortion, drawPreviews, drawEmbeddings]) draw(loaded);
  }
  remember();
  document.documentElement.dataset.drawn = String(own);
};
const chooseSpaces = (spaces) => { Object.assign(choice, spaces); return redraw(); };
const choosePair = (source, target) => choose({ source, target });
const chooseLayers = (source_layer, target_layer) => choose({ source_layer, target_layer });
const choose = (more) => {
  // Other models have other layers: what was chosen of the former ones is not carried over.
  const isOther = ["dataset", "source", "target"].some((control) => control in more && more[control] !== choice[control]);
  if (isOther) for (const control of ["source_layer", "target_layer"]) delete choice[control];
  Object.assign(choice, more);
  return redraw();
};

// A link of the page leads to a part of it, once that is drawn.
const goTo = (part) => {
  const found = part && byId(part);
  if (found) found.scrollIntoView();
};
// Words of the search box are looked for a moment after the last key.
let waitingFor = 0;
const search = () => {
  clearTimeout(waitingFor);
  waitingFor = setTimeout(() => choose({ find: byId("find").value }), 120);
};
let widthBefore = 0;
const resized = () => {
  if (innerWidth === widthBefore) return;
  widthBefore = innerWidth;
  for (const host of document.querySelectorAll(".plot[id]")) if (host.checkVisibility?.() !== false) host.redraw?.();
};

const begin = async () => {
  byId("bar").hidden = false;
  byId("to-charts")?.removeAttribute("hidden");
  for (const form of document.forms) form.addEventListener("submit", (event) => event.preventDefault());
  byId("find").addEventListener("input", search);
  byId("copy-link").onclick = copyLink;
  addEventListener("hashchange", async () => {
    // A link to a part of the page is no choice.
    if (!location.hash.includes("=")) { remember(); return; }
    const part = recall();
    await redraw();
    goTo(part);
  });
  const part = recall();
  if (!facts.datasets.length) return;
  beginTables();
  beginSearch();
  for (const control of Object.keys(controls)) {
    byId(control)?.addEventListener("change", ({ target }) => {
      const value = target.type === "checkbox" ? (target.checked ? "yes" : "") : target.value;
      if (target.tagName !== "INPUT" || target.type === "checkbox" || controls[control].offered().includes(value)) choose({ [control]: value });
      else target.value = choice[control];
    });
  }
  widthBefore = innerWidth;
  addEventListener("resize", resized);
  await redraw();
  addTools();
  goTo(part);
};
begin().then(
  () => { performance.mark("ready"); document.documentElement.dataset.ready = "true"; },
  (problem) => {
    byId("drawing-error").textContent = `The charts could not be drawn: ${problem.message}. Needs Chrome 80, Firefox 113 or Safari 16.4, or newer ones.`;
    byId("drawing-error").hidden = false;
    throw problem;
  },
);
