// The page: what is chosen is loaded, then drawn; only the last choice counts.
const load = async () => {
  const { cells, models, low, high } = view(), { beside, views } = measured();
  const { maps, embeddings, diagnostics } = dataset();
  const sides = (pack) => together({ source: pack("source"), target: pack("target") });
  return together({
    cells: matrix(cells), models: matrix(models), low: matrix(low), high: matrix(high),
    calibrated: matrix(views.calibrated?.cells), beside: together(mapped(beside, matrix)), diagnostics: together(mapped(diagnostics, matrix)),
    maps: entries(maps?.maps), ofClass: sides((side) => matrix(maps?.distortion[side].by_class)),
    means: sides((side) => matrix(maps?.distortion[side].mean)), worst: sides((side) => matrix(maps?.distortion[side].worst_values)),
    x: matrix(embeddings?.x), y: matrix(embeddings?.y), after: matrix(embeddings?.after),
    onPoints: sides((side) => entries(embeddings?.distortion?.[side])),
  });
};
const mapped = (object, change) => Object.fromEntries(Object.entries(object).map(([name, value]) => [name, change(value)]));

let turn = 0;
const redraw = async () => {
  const own = ++turn;
  await settle();
  const loaded = view() ? await load() : null;
  if (own !== turn) return;
  fillControls();
  byId("charts").hidden = !loaded;
  byId("no-numbers").hidden = Boolean(loaded);
  byId("convention").textContent = named(facts.measures, choice.measure).convention;
  if (loaded) {
    byId("shown-models").textContent = shownNow();
    for (const draw of [drawModels, drawNearest, drawZooMap, drawLayers, drawMatched, drawFunctionalMap, drawDistortion, drawEmbeddings]) draw(loaded);
  }
  remember();
  document.documentElement.dataset.drawn = String(own);
};
const choosePair = (source, target) => choose({ source, target });
const chooseLayers = (source_layer, target_layer) => choose({ source_layer, target_layer });
const choose = (more) => {
  // Other models have other layers: what was chosen of the former ones is not carried over.
  const isOther = ["dataset", "source", "target"].some((control) => control in more && more[control] !== choice[control]);
  if (isOther) for (const control of ["source_layer", "target_layer"]) delete choice[control];
  Object.assign(choice, more);
  return redraw();
};

const begin = async () => {
  if (!facts.datasets.length) return;
  for (const control of Object.keys(controls)) {
    byId(control)?.addEventListener("change", ({ target }) => choose({ [control]: target.value }));
  }
  for (const form of document.forms) form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", () => {
    // A link to a part of the page is no choice.
    if (location.hash.includes("=")) { recall(); redraw(); } else remember();
  });
  recall();
  await redraw();
};
begin().then(
  () => { document.documentElement.dataset.ready = "true"; },
  (problem) => {
    byId("trouble").textContent = `The charts could not be drawn: ${problem.message}. Needs Chrome 80, Firefox 113 or Safari 16.4, or newer ones.`;
    byId("trouble").hidden = false;
    throw problem;
  },
);
