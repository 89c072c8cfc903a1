// Take it away: tables as CSV, charts as SVG and PNG, the address of what is shown.
const save = (name, href) => {
  const link = html("a", { download: name, href });
  document.body.append(link);
  link.click();
  link.remove();
};
const fileName = (id, ending) => `${id.replace(/^(chart|table)-/, "")}.${ending}`;
const button = (word, label, act, more = {}) => {
  const made = html("button", { type: "button", "aria-label": label, ...more }, word);
  made.onclick = act;
  return made;
};

// As `lfm-atlas export` writes it: what a spreadsheet would run has a ' before it.
const quoted = (text) => {
  const isNumber = /^-?[\d.,]+(e[-+]?\d+)?$/i.test(text), safe = !isNumber && /^[=+\-@\t\r\n']/.test(text) ? `'${text}` : text;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
};
// Of a picture its name.
const wordOf = (cell) => (cell.dataset.word ?? (cell.textContent || [...cell.querySelectorAll("img")].map(({ alt }) => alt).join("; "))).trim();
const csvOf = (shown) => [...shown.rows].filter((row) => !row.hidden && !row.parentElement.hidden)
  .map((row) => [...row.cells].map((cell) => quoted(wordOf(cell))).join(",")).join("\r\n");

const LOOKS = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "opacity", "font-family", "font-size", "font-weight", "visibility"];
// The drawing by itself: what the style sheet says of each mark becomes attributes.
const svgText = (drawing) => {
  const copy = drawing.cloneNode(true), from = [drawing, ...drawing.querySelectorAll("*")], to = [copy, ...copy.querySelectorAll("*")];
  from.forEach((mark, i) => {
    const style = getComputedStyle(mark);
    if (mark.tagName !== "image") for (const look of LOOKS) to[i].setAttribute(look, style.getPropertyValue(look));
    to[i].removeAttribute("class");
  });
  const { width, height } = drawing.viewBox.baseVal;
  copy.setAttribute("width", width);
  copy.setAttribute("height", height);
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  copy.insertBefore(svg("rect", { width, height, fill: getComputedStyle(document.body).backgroundColor }), copy.firstChild);
  return { made: new XMLSerializer().serializeToString(copy), width, height };
};
const saveSvg = (host) => save(fileName(host.id, "svg"), URL.createObjectURL(new Blob([svgText(host.querySelector("svg")).made], { type: "image/svg+xml" })));
const savePng = (host) => {
  const { made, width, height } = svgText(host.querySelector("svg")), image = new Image(), scale = Math.min(2, 8000 / Math.max(width, height));
  image.onload = () => {
    const canvas = html("canvas", { width: Math.round(width * scale), height: Math.round(height * scale) });
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    save(fileName(host.id, "png"), canvas.toDataURL("image/png"));
  };
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(made)}`;
};

const addTools = () => {
  for (const host of document.querySelectorAll(".plot[id]")) {
    const said = host.getAttribute("aria-label").split(";")[0], tools = html("div", { class: "tools" });
    if (host.dataset.zooms) {
      tools.append(
        button("−", `Make smaller: ${said}`, () => zoomBy(host, 1 / ZOOM_STEP)), button("+", `Make larger: ${said}`, () => zoomBy(host, ZOOM_STEP)),
        button("Whole", `Show whole: ${said}`, () => zoomTo(host, 1)), html("span", { class: "how" }, "Ctrl and wheel or two fingers zoom, dragging moves; keys + − 0"),
      );
      beginZoom(host);
    }
    tools.append(button("SVG", `SVG of: ${said}`, () => saveSvg(host)), button("PNG", `PNG of: ${said}`, () => savePng(host)));
    host.parentElement.before(tools);
  }
  for (const region of document.querySelectorAll(".wide[role=region]")) {
    const said = region.getAttribute("aria-label");
    const name = region.id || `${said.toLowerCase().replace(/[^a-z0-9]+/g, "-").slice(0, 60)}`;
    region.after(html("div", { class: "tools" }, button("CSV", `CSV of: ${said}`, () => {
      build(region.id);
      const shown = region.querySelector("table");
      if (shown) save(fileName(name, "csv"), URL.createObjectURL(new Blob(["\ufeff", csvOf(shown), "\r\n"], { type: "text/csv" })));
    })));
  }
};
const copyLink = async () => {
  const said = byId("copied");
  try {
    await navigator.clipboard.writeText(location.href);
    said.textContent = "Copied: it opens what you see now.";
  } catch {
    said.textContent = location.href;
  }
};
