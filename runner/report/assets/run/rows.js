// The chosen row, which all views share, and the controls that move it.

function makePage(shared) {
  const listeners = [];
  let at = Math.max(0, shared.at ?? 0);
  const page = {
    rows: shared.rows ?? [],
    name: shared.name,
    at: () => at,
    row: () => page.rows[at]?.row ?? NaN,
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
    const { row, path, iteration } = page.rows[page.at()];
    slider.value = page.at();
    const text = `row ${row}: ${path}${path.includes("[") ? `, iteration ${iteration}` : ""}`;
    said.textContent = text;
    slider.setAttribute("aria-valuetext", text);
    back.disabled = page.at() === 0;
    on.disabled = page.at() === last;
  }
  page.follows(update);
  update();
  return make("div", { class: "stepper" }, back, named("Row", slider, { class: "control wide-control" }), on, said);
}
