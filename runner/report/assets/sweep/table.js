// The table of the points: sorted by any column, filtered by conditions, a page at a time.

const AT_A_TIME = 20;

function pointsView(target, _, page) {
  target.closest("section").querySelector(".static")?.remove();
  if (!page.count) return;
  let [first, by, down] = [0, null, false];
  const note = make("output", { class: "where", "aria-live": "polite" });
  const body = make("tbody", {});
  const heads = page.columns.map((column) => {
    const head = make("th", { scope: "col" }, button(column.name, () => sort(column.name)));
    return head;
  });
  const filter = make("input", { type: "text", placeholder: "rank <= 10 and status = finished", on: { change: apply } });
  const less = button("Points before", () => turn(-AT_A_TIME));
  const more = button("More points", () => turn(AT_A_TIME));

  function apply() {
    const fault = page.filter(filter.value);
    filter.setAttribute("aria-invalid", fault ? "true" : "false");
    if (fault) note.textContent = fault;
  }

  function sort(name) {
    [down, by] = [by === name ? !down : false, name];
    heads.forEach((head, place) => {
      if (page.columns[place].name === by) head.setAttribute("aria-sort", down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    first = 0;
    page.sort(by, down);
  }

  function turn(places) {
    first = Math.min(Math.max(0, first + places), Math.max(0, page.shown.length - 1));
    paint();
  }

  function line(place) {
    const cells = page.columns.map((column) => {
      if (column.name === "point") {
        const chosen = button(textOf(column, place), () => page.choose(place), { "aria-pressed": String(place === page.chosen) });
        return make("th", { scope: "row" }, chosen);
      }
      const value = textOf(column, place);
      return make("td", { class: column.numbers ? "number" : null, title: value.length > 60 ? value : null }, value);
    });
    const row = make("tr", { on: { click: () => page.choose(place) } }, cells);
    if (place === page.chosen) row.classList.add("marked");
    return row;
  }

  function paint() {
    if (first >= page.shown.length) first = 0;
    const shown = page.shown.slice(first, first + AT_A_TIME);
    body.replaceChildren(...shown.map(line));
    const last = first + shown.length;
    note.textContent = shown.length
      ? `${first + 1} to ${last} of ${page.shown.length} points${page.shown.length < page.count ? `, of ${page.count}` : ""}`
      : `none of ${page.count} points`;
    less.disabled = first === 0;
    more.disabled = last >= page.shown.length;
  }

  function follow() {
    const at = page.shown.indexOf(page.chosen);
    if (at >= 0 && (at < first || at >= first + AT_A_TIME)) first = at - (at % AT_A_TIME);
    const focused = document.activeElement?.closest("tbody") === body ? document.activeElement.textContent : null;
    paint();
    if (focused !== null) [...body.querySelectorAll("button")].find((each) => each.textContent === focused)?.focus();
  }

  const clear = button("All points", () => {
    filter.value = "";
    apply();
  });
  target.append(
    chooser(page),
    make("div", { class: "controls" }, named("Filter", filter, { class: "control wide-control" }), clear),
    note,
    make(
      "div",
      { class: "wide", tabindex: 0, role: "region", "aria-label": "Points" },
      make("table", { class: "points" }, make("caption", {}, "Points"), make("thead", {}, make("tr", {}, heads)), body),
    ),
    make("div", { class: "controls" }, less, more),
  );
  page.follows(follow);
  paint();
}
