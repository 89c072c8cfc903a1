// Elements: HTML and SVG made of text that stays text.
const byId = (id) => document.getElementById(id);

const html = (name, attributes = {}, ...children) => filled(document.createElement(name), attributes, children);
const svg = (name, attributes = {}, ...children) =>
  filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
const filled = (element, attributes, children) => {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};

const shortened = (name) => (name.length > 28 ? `${name.slice(0, 13)}…${name.slice(-13)}` : name);

// Columns of numbers stand right; the first column names the row.
const table = (columns, rows, nTexts = 1) => {
  const place = (c) => (c < nTexts ? {} : { class: "number" });
  const head = html("tr", {}, ...columns.map((name, c) => html("th", { scope: "col", ...place(c) }, name)));
  const body = rows.map((cells) =>
    html("tr", {}, ...cells.map((cell, c) => (c ? html("td", place(c), cell) : html("th", { scope: "row" }, cell)))));
  return html("table", {}, html("thead", {}, head), html("tbody", {}, ...body));
};
const show = (id, made) => byId(id).replaceChildren(made);

// A table behind a summary is made when it is opened, or printed.
const waiting = new Map();
const showWhenOpen = (id, make) => {
  const details = byId(id).closest("details");
  waiting.set(id, make);
  details.ontoggle = () => { if (details.open) build(id); };
  if (details.open) build(id);
};
const build = (id) => {
  if (waiting.has(id)) show(id, waiting.get(id)());
  waiting.delete(id);
};

let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  for (const id of [...waiting.keys()]) build(id);
  for (const details of opened) details.open = true;
});
addEventListener("afterprint", () => { for (const details of opened) details.open = false; });

// What a chart shows can be pointed at, walked with the arrow keys, heard, and chosen with Enter.
const explore = (host, { nSpots, spotAt, said, step, ringAround, choose = null }) => {
  const drawing = host.querySelector("svg"), readout = byId(`${host.id}-readout`);
  const ring = svg("rect", { class: "ring", visibility: "hidden" });
  drawing.append(ring);
  const stand = (spot) => {
    host.spot = spot;
    const around = spot === null ? null : ringAround(spot);
    ring.setAttribute("visibility", around ? "visible" : "hidden");
    for (const [name, value] of Object.entries(around ?? {})) ring.setAttribute(name, value);
    readout.textContent = spot === null ? "" : said(spot);
  };
  const pointed = (event) => {
    const box = drawing.getBoundingClientRect(), { width, height } = drawing.viewBox.baseVal;
    return spotAt(((event.clientX - box.left) / box.width) * width, ((event.clientY - box.top) / box.height) * height);
  };
  host.onpointermove = (event) => stand(pointed(event));
  host.onclick = (event) => { const spot = pointed(event); if (spot !== null && choose) choose(spot); };
  host.onfocus = () => { if ((host.spot ?? null) === null && nSpots) stand(0); };
  host.onkeydown = (event) => {
    const spot = Math.min(host.spot ?? 0, nSpots - 1);
    if (!nSpots || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "Escape") stand(null);
    else if ((event.key === "Enter" || event.key === " ") && choose) choose(spot);
    else if (event.key === "Home") stand(0);
    else if (event.key === "End") stand(nSpots - 1);
    else if (event.key.startsWith("Arrow")) stand(step(spot, event.key.slice(5)));
    else return;
    event.preventDefault();
  };
  stand((host.spot ?? null) === null || host.spot >= nSpots ? null : host.spot);
};
const inLine = (nSpots) => (spot, way) => {
  const next = spot + (way === "Right" || way === "Down" ? 1 : -1);
  return Math.max(0, Math.min(nSpots - 1, next));
};
