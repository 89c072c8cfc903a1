// Tables of the page itself: sorted by a click on a head.
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

const beginTables = () => {
  for (const shown of document.querySelectorAll("table.sortable")) makeSortable(shown);
};
