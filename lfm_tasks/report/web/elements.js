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

const shortened = (name, most = 28) => {
  const half = Math.floor((most - 1) / 2);
  return name.length > most ? `${name.slice(0, half)}…${name.slice(-half)}` : name;
};

// Names without what all begin and end with, as far as that ends at a point, slash, bar or dash.
const trimmed = (all) => {
  if (all.length < 2) return { short: all, before: "", after: "" };
  const shared = (names) => {
    let n = 0;
    while (n < names[0].length && names.every((name) => name[n] === names[0][n])) n++;
    while (n > 0 && !"./_:-".includes(names[0][n - 1])) n--;
    return n;
  };
  const reversed = (name) => [...name].reverse().join("");
  const start = shared(all), rest = all.map((name) => name.slice(start)), end = shared(rest.map(reversed));
  if (start + end < 3) return { short: all, before: "", after: "" };
  return { short: rest.map((name) => name.slice(0, name.length - end)), before: all[0].slice(0, start), after: end ? all[0].slice(-end) : "" };
};
const leftOut = ({ before, after }) => (before || after ? `${before}*${after}` : "");

// Columns of numbers stand right; the first column names the row.
const table = (columns, rows, nTexts = 1) => {
  const place = (c) => (c < nTexts ? {} : { class: "number" });
  const head = html("tr", {}, ...columns.map((name, c) => html("th", { scope: "col", ...place(c) }, name)));
  const body = rows.map((cells) =>
    html("tr", {}, ...cells.map((cell, c) => (c ? html("td", place(c), cell) : html("th", { scope: "row" }, cell)))));
  // More columns than a sheet of paper holds; the chart above shows the same.
  return html("table", columns.length > 24 ? { class: "vast" } : {}, html("thead", {}, head), html("tbody", {}, ...body));
};
const show = (id, made) => byId(id).replaceChildren(made);
// The room that a chart has; the parent scrolls where a chart needs more.
const roomOf = (host) => Math.max(240, (host.parentElement.parentElement.clientWidth || 640) - 6);

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

// Words beside the mouse, or beside what the arrow keys stand on.
const tip = (lines, x, y) => {
  const box = byId("tip");
  box.hidden = !lines;
  if (!lines) return;
  box.replaceChildren(...lines.map((line) => html("div", {}, line)));
  const { width, height } = box.getBoundingClientRect(), { clientWidth, clientHeight } = document.documentElement;
  box.style.left = `${Math.max(4, Math.min(x + 14, clientWidth - width - 4))}px`;
  box.style.top = `${y + 18 + height < clientHeight ? y + 18 : Math.max(4, y - height - 12)}px`;
};

// What a chart shows can be pointed at, walked with the arrow keys, heard, and chosen with Enter.
const explore = (host, { nSpots, spotAt, said, lines = (spot) => [said(spot)], step, ringAround, choose = null }) => {
  const drawing = host.querySelector("svg"), readout = byId(`${host.id}-readout`);
  const ring = svg("rect", { class: "ring", visibility: "hidden" });
  drawing.append(ring);
  const stand = (spot, x = null, y = null) => {
    host.spot = spot;
    const around = spot === null ? null : ringAround(spot);
    ring.setAttribute("visibility", around ? "visible" : "hidden");
    for (const [name, value] of Object.entries(around ?? {})) ring.setAttribute(name, value);
    readout.textContent = spot === null ? "" : said(spot);
    tip(spot === null || x === null ? null : lines(spot), x, y);
  };
  const pointed = (event) => {
    const box = drawing.getBoundingClientRect(), { width, height } = drawing.viewBox.baseVal;
    return spotAt(((event.clientX - box.left) / box.width) * width, ((event.clientY - box.top) / box.height) * height);
  };
  const walk = (spot) => {
    stand(spot);
    ring.scrollIntoView({ block: "nearest", inline: "nearest" });
    const box = ring.getBoundingClientRect();
    tip(lines(spot), box.right - 10, box.bottom - 10);
  };
  host.onpointermove = (event) => { if (!host.classList.contains("dragged")) stand(pointed(event), event.clientX, event.clientY); };
  host.onpointerleave = () => tip(null);
  host.onblur = () => tip(null);
  host.onclick = (event) => { const spot = host.wasDragged ? null : pointed(event); if (spot !== null && choose) choose(spot); };
  host.onfocus = () => { if ((host.spot ?? null) === null && nSpots) stand(0); };
  host.onkeydown = (event) => {
    const spot = Math.min(host.spot ?? 0, nSpots - 1);
    if (!nSpots || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "Escape") stand(null);
    else if ((event.key === "Enter" || event.key === " ") && choose) choose(spot);
    else if (event.key === "Home") walk(0);
    else if (event.key === "End") walk(nSpots - 1);
    else if (event.key.startsWith("Arrow")) walk(step(spot, event.key.slice(5)));
    else if (host.dataset.zooms && Object.hasOwn(ZOOM_KEYS, event.key)) {
      zoomBy(host, ZOOM_KEYS[event.key]);
      if ((host.spot ?? null) !== null) host.querySelector(".ring").scrollIntoView({ block: "nearest", inline: "nearest" });
    } else return;
    event.preventDefault();
  };
  stand((host.spot ?? null) === null || host.spot >= nSpots ? null : host.spot);
};
const inLine = (nSpots) => (spot, way) => {
  const next = spot + (way === "Right" || way === "Down" ? 1 : -1);
  return Math.max(0, Math.min(nSpots - 1, next));
};
