// The search: one box for every section. Tables hide rows, charts leave out what is not found, or say so in its place.
// "vit mit, mixer": what matches vit and mit, or mixer; "owner:ads" looks at one key of meta only.
const wanted = () => (choice.find ?? "").toLowerCase().split(",").map((part) => part.split(/\s+/).filter(Boolean)).filter((terms) => terms.length);
const matches = (name, meta) => {
  const any = wanted(), lower = (text) => String(text).toLowerCase();
  const has = (term) => {
    const [key, value] = term.split(":");
    if (value !== undefined && Object.keys(meta).some((known) => lower(known) === key)) {
      return Object.entries(meta).some(([known, text]) => lower(known) === key && lower(text).includes(value));
    }
    return lower(name).includes(term) || Object.values(meta).some((text) => lower(text).includes(term));
  };
  return !any.length || any.some((terms) => terms.every(has));
};
// A model is found by its name, its layers and its meta; a space by its own name, and its model's name and meta.
const isModelFound = ({ name, rows, meta }) => matches([name, ...rows.map((row) => dataset().layers[row])].join(" "), meta);
const isSpaceFound = (row) => { const { name, meta } = modelAt(row); return matches(`${name}/${dataset().layers[row]}`, meta); };
// Of a pair one of both is enough.
const isPairFound = () => isSpaceFound(rowOf("source")) || isSpaceFound(rowOf("target"));
// The places of the rows that are found; all of them where none is: the other side of the pair is, then.
const foundPlaces = (rows) => {
  const places = rows.map((_, place) => place), found = places.filter((place) => isSpaceFound(rows[place]));
  return found.length ? found : places;
};

// A section that is left out, most often by the search, says so in place of its content; returns whether it is left out.
const leaveOut = (id, isLeftOut, said = "", offersOthers = true) => {
  const section = byId(id).closest("section");
  let note = section.querySelector(":scope > .left-out");
  if (!note) {
    note = html("p", { class: "left-out", hidden: "" });
    section.querySelector("h2").after(note);
  }
  section.classList.toggle("is-left-out", isLeftOut);
  note.hidden = !isLeftOut;
  if (!isLeftOut) return false;
  const row = offersOthers ? [...rowsOf(choice.source), ...dataset().layers.keys()].find(isSpaceFound) : undefined;
  note.replaceChildren(said, ...(row === undefined ? [] : [" ", button(`Show ${spaceName(row)}`, `Show ${spaceName(row)}, which matches`, () => showSpace(row))]));
  return true;
};
const showSpace = (row) => {
  const source = modelOf(row), isOther = source !== choice.source;
  return choose({ source, ...(isOther ? { target: undefined } : {}), source_layer: dataset().layers[row] });
};
const NO_MODEL = "No model matches the search.";
const noneOf = (one, other) => `Neither ${one} nor ${other} matches the search.`;

// What rows of tables speak of: a model, or a space, "model/layer".
const modelsByName = new Map();
for (const { models, layers } of facts.datasets) for (const { name, rows, meta } of models) {
  const before = modelsByName.get(name)?.layers ?? "";
  modelsByName.set(name, { meta, layers: `${before} ${rows.map((row) => layers[row]).join(" ")}` });
}
const isTextFound = (texts, named, hasLayers) => named.some((name) => {
  const model = modelsByName.get(name), of = model ?? modelsByName.get(name.split("/")[0]);
  return matches([...texts, ...(model && !hasLayers ? [model.layers] : [])].join(" "), of?.meta ?? {});
});
// A table is filtered by its rows, or by bodies that name their pair; a list by its lines.
const unitsOf = (part) => {
  if (part.tagName === "UL") return [...part.children].map((line) => ({ shown: line, texts: [line.textContent], named: [line.textContent.split(":")[0]] }));
  const bodies = [...part.tBodies].filter((body) => body.dataset.source);
  if (bodies.length) return bodies.map((body) => ({ shown: body, texts: [body.textContent], named: [body.dataset.source, body.dataset.target] }));
  return [...part.tBodies[0].rows].map((row) => {
    const texts = [...row.cells].map((cell) => cell.textContent);
    return { shown: row, texts, named: part.dataset.of === "any" ? texts : texts.slice(0, 2) };
  });
};
const filterTables = () => {
  const isAll = !wanted().length;
  for (const part of document.querySelectorAll(".searched")) {
    const units = unitsOf(part), hasLayers = part.dataset.of === "layers";
    let n = 0;
    for (const { shown, texts, named } of units) {
      shown.hidden = !isTextFound(texts, named, hasLayers);
      n += !shown.hidden;
    }
    part.found.hidden = isAll;
    part.found.textContent = `${n || "None"} of ${units.length} match the search.`;
  }
  const { models } = dataset(), found = models.filter(isModelFound).length;
  byId("found").textContent = isAll ? "" : `${found} of ${models.length} models`;
};
const beginSearch = () => {
  for (const part of document.querySelectorAll(".searched")) {
    part.found = html("p", { class: "note", hidden: "" });
    (part.closest(".wide") ?? part).before(part.found);
  }
};
