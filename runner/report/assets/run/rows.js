// The chosen row, which all views share, and the controls that move it.

// A row in words: its number, its step, and where it stands in loops and epochs.
function wordsOf(known, row) {
  if (known?.row !== row) return `row ${row}`;
  const where = known.where ?? (known.path.includes("[") ? `iteration ${known.iteration}` : "");
  return `row ${row}: ${known.path}${where ? `, ${where}` : ""}`;
}

function makePage(shared) {
  const listeners = [];
  const rowNumbers = (shared.rows ?? []).map(({ row }) => row);
  let at = Math.max(0, shared.at ?? 0);
  const page = {
    rows: shared.rows ?? [],
    name: shared.name,
    at: () => at,
    row: () => page.rows[at]?.row ?? NaN,
    words: (row) => wordsOf(page.rows[placeOf(rowNumbers, row)], row),
    goTo: (row) => page.go(Math.max(0, placeOf(rowNumbers, row))),
    follows: (call) => listeners.push(call),
    go(place) {
      const next = Math.min(Math.max(place, 0), page.rows.length - 1);
      if (next === at) return;
      at = next;
      listeners.forEach((call) => call());
    },
  };
  return page;
}

function stepper(page) {
  const last = page.rows.length - 1;
  const slider = make("input", {
    type: "range",
    min: 0,
    max: last,
    step: 1,
    on: { input: () => page.go(Number(slider.value)) },
  });
  const said = make("output", { "aria-live": "polite" });
  const back = button("◀", () => page.go(page.at() - 1), { "aria-label": "Row before" });
  const on = button("▶", () => page.go(page.at() + 1), { "aria-label": "Next row" });
  function update() {
    slider.value = page.at();
    const text = page.words(page.row());
    said.textContent = text;
    slider.setAttribute("aria-valuetext", text);
    back.setAttribute("aria-disabled", page.at() === 0); // a disabled button would lose the focus
    on.setAttribute("aria-disabled", page.at() === last);
  }
  page.follows(update);
  update();
  return make("div", { class: "stepper" }, back, named("Row", slider, { class: "control wide-control" }), on, said);
}
