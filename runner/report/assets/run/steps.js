// One row at a time: the program with its current step, the graph, and the tensors with what the step changed.

// The places of rows at a line of the program, and words for the first of them.
function rowsOfLine(lines, line, page) {
  const places = lines.flatMap((each, place) => (each === line ? [place] : []));
  const numbers = places.slice(0, 3).map((place) => page.rows[place].row);
  const words = numbers.length ? `row${places.length > 1 ? "s" : ""} ${numbers.join(", ")}${places.length > 3 ? ", …" : ""}` : "no row";
  return { places, words };
}

function programView({ program, lines }, page) {
  const items = program.map((line, place) => {
    const { places, words } = rowsOfLine(lines, place, page);
    const next = () => page.go(places.find((each) => each > page.at()) ?? places[0]);
    const text = make("span", { class: "what" }, coded(line.text));
    const item = make("li", { value: line.number ?? null }, places.length ? button(text, next, { class: "line" }) : text);
    const verdict = line.verdict ? make("span", { class: line.passed ? "passed" : "note" }, line.verdict) : null;
    if (verdict || places.length || line.silent) item.append(make("span", { class: "note" }, " ", verdict ?? words));
    if (!line.number) item.style.listStyleType = "none";
    item.style.marginInlineStart = `${line.depth * 1.5}em`;
    return item;
  });
  function update() {
    items.forEach((item, place) => {
      if (place === lines[page.at()]) item.setAttribute("aria-current", "step");
      else item.removeAttribute("aria-current");
    });
  }
  page.follows(update);
  update();
  return make("ol", { class: "program", "aria-label": "Program" }, items);
}

function tensorTable({ tensors }, page) {
  const rows = tensors.map((tensor) => {
    const [value, change] = [make("td", { class: "number" }), make("td", { class: "number change" })];
    const row = make("tr", {}, make("th", { scope: "row" }, tensor.name), make("td", {}, tensor.kind), value, change);
    return { row, value, change };
  });
  function update() {
    const at = page.at();
    tensors.forEach((tensor, place) => {
      const { row, value, change } = rows[place];
      const changed = tensor.changed[at] === 1;
      value.textContent = tensor.values[at] ?? "none";
      change.textContent = tensor.by[at] ?? (changed ? "changed" : "");
      value.classList.toggle("broken", NOT_FINITE.test(tensor.values[at]));
      const moved = changed || ![null, "same"].includes(tensor.by[at]);
      row.className = moved ? "changed" : tensor.values[at] === null ? "missing" : "";
      if (tensor.name === page.name) row.classList.add("marked");
    });
  }
  page.follows(update);
  update();
  const head = make(
    "tr",
    {},
    ["name", "shape and dtype", "value in this row", "change"].map((name) => make("th", { scope: "col" }, name)),
  );
  return make(
    "div",
    { class: "wide", tabindex: 0, role: "region", "aria-label": "Tensors of this row" },
    make(
      "table",
      { class: "tensors" },
      make("caption", {}, "Tensors of this row"),
      make("thead", {}, head),
      make(
        "tbody",
        {},
        rows.map((each) => each.row),
      ),
    ),
  );
}

// The arithmetic of an update, with its numbers.
function sumsView({ sums }, page) {
  const list = make("div", { class: "sums", "aria-live": "polite" });
  const update = () => list.replaceChildren(...sums[page.at()].map((sum) => make("p", {}, ...coded(sum))));
  page.follows(update);
  update();
  return list;
}

function stepsView(target, data, page) {
  target.append(
    stepper(page),
    make("p", { class: "note" }, ...coded(data.note)),
    make("div", { class: "beside" }, programView(data, page), data.tensors.length ? tensorTable(data, page) : null),
  );
  if (data.sums?.some((each) => each.length)) target.append(sumsView(data, page));
  for (const graph of data.graphs) {
    target.append(make("h3", {}, `Graph of ${graph.objective}`));
    if (graph.left) target.append(make("p", { class: "note" }, `The graph has ${graph.left} nodes, too many to draw.`));
    else target.append(graphView(graph, page));
  }
}
