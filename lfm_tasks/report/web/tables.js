// Tables of the page itself: sorted by a click on a head, filtered by the search box.
const numberIn = (text) => { const found = parseFloat(text.replaceAll(",", "")); return Number.isNaN(found) ? null : found; };
const collator = new Intl.Collator("en", { numeric: true });
const compared = (a, b) => {
  const [x, y] = [numberIn(a), numberIn(b)];
  if (x !== null && y !== null && x !== y) return x - y;
  return collator.compare(a, b);
};
const sortBy = (shown, column, isFalling) => {
  const body = shown.tBodies[0], rows = [...body.rows];
  const cell = (row) => row.cells[column].textContent.trim();
  // What has no value stands last, whichever way.
  const isEmpty = (row) => cell(row) === "–" || cell(row) === "";
  rows.sort((a, b) => isEmpty(a) - isEmpty(b) || (isFalling ? compared(cell(b), cell(a)) : compared(cell(a), cell(b))));
  body.append(...rows);
  [...shown.tHead.rows[0].cells].forEach((head, c) => {
    if (c === column) head.setAttribute("aria-sort", isFalling ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  });
};
const makeSortable = (shown) => {
  [...shown.tHead.rows[0].cells].forEach((head, column) => {
    const word = head.textContent, made = html("button", { type: "button", class: "sort" }, word);
    head.dataset.word = word;
    made.onclick = () => {
      const before = head.getAttribute("aria-sort"), isNumber = head.classList.contains("number");
      sortBy(shown, column, before ? before === "ascending" : isNumber);
    };
    head.replaceChildren(made);
  });
};

// "vit mit, mixer": models that match vit and mit, or mixer; "owner:ads" looks at one key of meta only.
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
const metaOf = (name) => { for (const { models } of facts.datasets) { const model = named(models, name); if (model) return model.meta; } return {}; };
const filterTables = () => {
  for (const shown of document.querySelectorAll("table.searched")) {
    let n = 0;
    for (const row of shown.tBodies[0].rows) {
      const texts = [...row.cells].map((cell) => cell.textContent);
      // Of a pair one of both is enough.
      row.hidden = !texts.slice(0, 2).some((text) => matches(texts.join(" "), metaOf(text)));
      n += !row.hidden;
    }
    shown.dataset.shown = String(n);
  }
};
const beginTables = () => {
  for (const shown of document.querySelectorAll("table.sortable")) makeSortable(shown);
  filterTables();
};
