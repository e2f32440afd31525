"use strict";
(function () {
  const all = (selector, root) => Array.from((root || document).querySelectorAll(selector));

  const lines = (body) => all("tr:not(.group)", body);

  // Sorting: only within a table's body, whose rows are of one measure and one protocol.
  function key(row, column, word) {
    const cell = row.cells[column];
    if (word) return cell.textContent.trim().toLowerCase();
    return "key" in cell.dataset ? Number(cell.dataset.key) : null;
  }

  function order(column, word, sign) {
    return function (left, right) {
      const a = key(left, column, word), b = key(right, column, word);
      if (a === null || b === null) return (a === null) - (b === null);
      return sign * (a < b ? -1 : a > b ? 1 : 0);
    };
  }

  const NEXT = { none: "ascending", ascending: "descending", descending: "none" };

  function sort(table, heading) {
    const next = NEXT[heading.getAttribute("aria-sort")];
    all("thead th", table).forEach((each) => each.setAttribute("aria-sort", "none"));
    heading.setAttribute("aria-sort", next);
    const word = !heading.classList.contains("number"), column = heading.cellIndex;
    for (const body of table.tBodies) {
      const rows = lines(body).sort((a, b) => a.dataset.place - b.dataset.place);
      if (next !== "none") rows.sort(order(column, word, next === "ascending" ? 1 : -1));
      body.append(...rows);
    }
  }

  all("table[data-sortable]").forEach(function (table) {
    for (const body of table.tBodies) lines(body).forEach((row, place) => { row.dataset.place = place; });
    all("thead th", table).forEach(function (heading) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = heading.textContent;
      button.addEventListener("click", () => sort(table, heading));
      heading.replaceChildren(button);
      heading.setAttribute("aria-sort", "none");
    });
  });

  // Filters by protocol, variant and verdict; the baseline stays beside what is compared with it.
  const form = document.getElementById("filters"), shown = document.getElementById("shown");

  function chosen(name) {
    const field = document.getElementById("filter-" + name);
    return field ? field.value : "";
  }

  function fits(row, variant, tone) {
    if (row.dataset.variant === "baseline") return true;
    if (variant && "variant" in row.dataset && row.dataset.variant !== variant) return false;
    const judged = row.closest("table").querySelector("tr[data-tone]");
    return !(tone && judged && row.dataset.tone !== tone);
  }

  function filter() {
    const arm = chosen("arm"), variant = chosen("variant"), tone = chosen("tone");
    all("[data-arm]").forEach((part) => { part.hidden = Boolean(arm) && part.dataset.arm !== arm; });
    all("[data-variant-section]").forEach(function (part) {
      part.hidden = Boolean(variant) && part.dataset.variantSection !== variant;
    });
    const rows = all("table[data-sortable] tbody").flatMap(lines);
    rows.forEach((row) => { row.hidden = !fits(row, variant, tone); });
    const visible = rows.filter((row) => !row.closest("[hidden]")).length;
    shown.textContent = visible + " of " + rows.length + " rows shown";
  }

  // A link to what a filter hides shows everything first.
  function reveal() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target || !target.closest("[hidden]")) return;
    form.reset();
    filter();
    target.scrollIntoView();
  }

  form.addEventListener("change", filter);
  form.addEventListener("reset", () => setTimeout(filter));
  form.addEventListener("submit", (event) => event.preventDefault());
  window.addEventListener("hashchange", reveal);
  form.hidden = false;
  filter();
})();
