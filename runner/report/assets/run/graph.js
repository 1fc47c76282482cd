// The graph of an expression: operations, shapes, and the value and the gradient of each node in the chosen row.

const BOX = { width: 176, height: 74, across: 40, down: 14, lane: 8 };
const NOT_FINITE = /\b(nan|inf|infinite)\b/;

function cut(text, length) {
  return text.length > length ? `${text.slice(0, length - 1)}…` : text;
}

function brief(text, length) {
  const range = text.match(/^norm .*, from (\S+) to ([^,]+)(, [\d,]+ zeros?)?$/);
  if (range) return cut(`${range[1]} to ${range[2]}${range[3] ?? ""}`, length);
  return cut(text.split("; ")[0].replace(/ elements$/, ""), length);
}

// The gradient in this step alone, or what the log has as `.grad`.
function signed(gradient) {
  return gradient.startsWith(".grad ") ? `.grad ${brief(gradient.slice(6), 17)}` : `∂ ${brief(gradient, 21)}`;
}

// Lines between boxes: curves in the gaps, straight along lanes, with a head at the end.
function edgesOf(ways) {
  return ways.flatMap((points) => {
    let path = `M${points[0].join(" ")}`;
    for (let at = 1; at < points.length; at++) {
      const [[x1, y1], [x2, y2]] = [points[at - 1], points[at]];
      const bend = (x2 - x1) / 2;
      path += at % 2 ? `C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}` : `L${x2} ${y2}`;
    }
    const [x, y] = points.at(-1);
    return [draw("path", { d: path, class: "edge" }), draw("path", { d: `M${x} ${y}l-7 -4v8z`, class: "head" })];
  });
}

function nodeBox(node, box, pressed) {
  const title = node.name && node.name !== node.label ? `${node.name} = ${node.label}` : node.label;
  const value = draw("text", { x: 10, y: 50 });
  const gradient = draw("text", { x: 10, y: 66 });
  const full = draw("title", {});
  const shape = draw("text", { x: 10, y: 33, class: "shape" }, cut(node.shape, 28));
  const group = draw(
    "g",
    { transform: `translate(${box.x} ${box.y})`, on: { click: pressed } },
    full,
    draw("rect", { width: box.width, height: box.height, rx: 6 }),
    draw("text", { x: 10, y: 18, class: "label" }, cut(title, 24)),
    shape,
    value,
    gradient,
  );
  return { group, value, gradient, full, title, shape };
}

function graphTable(label, body) {
  const head = ["node", "shape", "value", "gradient"].map((name) => make("th", { scope: "col" }, name));
  const table = make(
    "table",
    {},
    make("caption", {}, label),
    make("thead", {}, make("tr", {}, head)),
    make("tbody", {}, body.map((each) => each.row)),
  );
  const wide = { class: "wide", tabindex: 0, role: "region", "aria-label": `${label}, as a table` };
  return make("details", {}, make("summary", {}, "The graph as a table"), make("div", wide, table));
}

const KINDS = { weight: "a parameter", constant: "a constant, without a gradient", data: "data", operation: "an operation" };

function sample(kind) {
  const group = draw("g", { class: `node ${kind}` }, draw("rect", { x: 2, y: 2, width: 22, height: 12, rx: 3 }));
  return draw("svg", { class: "sample", viewBox: "0 0 26 16", "aria-hidden": "true" }, group);
}

function legend(nodes) {
  const there = Object.keys(KINDS).filter((kind) => nodes.some((node) => node.kind === kind));
  return make("ul", { class: "keys" }, there.map((kind) => make("li", {}, sample(kind), KINDS[kind])));
}

function graphView(graph, page) {
  const { boxes, ways, width, height } = placed(graph.nodes, BOX);
  const named = page.name === null ? -1 : graph.nodes.findIndex((node) => page.name === (node.name ?? node.label));
  let picked = -1;
  const cells = graph.nodes.map((node, place) =>
    nodeBox(node, boxes[place], () => {
      picked = place;
      update();
    }),
  );
  const body = graph.nodes.map((node, place) => {
    const cell = [make("td", {}, node.shape), make("td", {}), make("td", {})];
    return { row: make("tr", {}, make("th", { scope: "row" }, cells[place].title), ...cell), cell };
  });
  const state = make("p", { class: "note", "aria-live": "polite" });
  const detail = make("output", { class: "where", "aria-live": "polite" });
  function update() {
    const at = page.at();
    const flow = graph.flows[at];
    const marks = graph.marks?.[at] ?? {};
    const none = flow.some(([value]) => value !== null) ? "" : "This row has no values. ";
    state.replaceChildren(...coded(`${none}${graph.states[at]}`));
    cells.forEach((cell, place) => {
      const { kind, shape: usual } = graph.nodes[place];
      const [value, gradient, shape = usual] = flow[place];
      const mark = marks[place];
      const classes = ["node", kind, mark, place === named && "marked", place === picked && "picked"];
      cell.group.setAttribute("class", classes.filter(Boolean).join(" "));
      cell.value.textContent = value === null ? "" : brief(value, 23);
      cell.value.setAttribute("class", NOT_FINITE.test(value) ? "value broken" : "value");
      cell.gradient.textContent = gradient === null ? "" : signed(gradient);
      cell.gradient.setAttribute("class", NOT_FINITE.test(gradient) ? "gradient broken" : "gradient");
      cell.shape.textContent = cut(mark === "origin" ? "not finite from here on" : shape, 28);
      cell.full.textContent = `${cell.title}, ${shape}\nvalue ${value ?? "unknown"}\ngradient ${gradient ?? "none"}`;
      [shape, value ?? "", gradient ?? ""].forEach((text, column) => (body[place].cell[column].textContent = text));
    });
    const full = picked < 0 ? "A click on a box shows its numbers here." : cells[picked].full.textContent;
    detail.textContent = full.replaceAll("\n", "; ");
  }
  page.follows(update);
  update();
  const label = `Graph of ${graph.objective}: ${graph.nodes.length} nodes`;
  const size = { viewBox: `-4 -4 ${width + 8} ${height + 8}`, width: width + 8, height: height + 8 };
  const picture = draw("svg", { ...size, role: "img", "aria-label": label }, edgesOf(ways), cells.map((cell) => cell.group));
  const scroll = make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }, picture);
  const hint = make("p", { class: "note", hidden: true }, "The graph is wider than the screen: scroll it sideways.");
  new ResizeObserver(() => (hint.hidden = scroll.scrollWidth <= scroll.clientWidth)).observe(scroll);
  const origin = Object.entries(graph.marks?.[page.at()] ?? {}).find(([, mark]) => mark === "origin");
  const seen = origin ? Number(origin[0]) : named;
  if (seen >= 0) {
    requestAnimationFrame(() => (scroll.scrollLeft = boxes[seen].x + boxes[seen].width / 2 - scroll.clientWidth / 2));
  }
  return make("div", {}, legend(graph.nodes), state, hint, scroll, detail, graphTable(label, body));
}
