// The graph of an expression: operations, shapes, and the value and the gradient of each node in the chosen row.

const BOX = { width: 176, height: 74, across: 40, down: 14 };

function cut(text, length) {
  return text.length > length ? `${text.slice(0, length - 1)}…` : text;
}

function brief(text, length) {
  if (text.startsWith("norm ")) return cut(text.split(",")[0], length);
  return cut(text.replace(/ elements$/, ""), length);
}

function graphView(graph, page) {
  const { boxes, width, height } = placed(graph.nodes, BOX);
  const edges = graph.nodes.flatMap((node, place) =>
    node.from.map((source) => {
      const [from, to] = [boxes[source], boxes[place]];
      const [x1, y1, x2, y2] = [from.x + from.width, from.y + from.height / 2, to.x, to.y + to.height / 2];
      const bend = Math.max(20, (x2 - x1) / 2);
      return draw("path", { d: `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`, class: "edge" });
    }),
  );
  const marked = page.name === null ? -1 : graph.nodes.findIndex((node) => page.name === (node.name ?? node.label));
  const cells = graph.nodes.map((node, place) => {
    const box = boxes[place];
    const title = node.name && node.name !== node.label ? `${node.name} = ${node.label}` : node.label;
    const value = draw("text", { x: 10, y: 50, class: "value" });
    const gradient = draw("text", { x: 10, y: 66, class: "gradient" });
    const full = draw("title", {});
    const group = draw(
      "g",
      { transform: `translate(${box.x} ${box.y})`, class: `node ${node.kind}${place === marked ? " marked" : ""}` },
      full,
      draw("rect", { width: box.width, height: box.height, rx: 6 }),
      draw("text", { x: 10, y: 18, class: "label" }, cut(title, 24)),
      draw("text", { x: 10, y: 33, class: "shape" }, cut(node.shape, 28)),
      value,
      gradient,
    );
    return { group, value, gradient, full, title };
  });
  const body = graph.nodes.map((node, place) => {
    const cell = [make("td", {}), make("td", {})];
    return {
      row: make("tr", {}, make("th", { scope: "row" }, cells[place].title), make("td", {}, node.shape), ...cell),
      cell,
    };
  });
  const state = make("p", { class: "note", "aria-live": "polite" });
  function update() {
    const flow = graph.flows[page.at()];
    const any = flow.some(([value]) => value !== null);
    state.textContent = any ? graph.states[page.at()] : `This row has no values. ${graph.states[page.at()]}`;
    cells.forEach((cell, place) => {
      const [value, gradient] = flow[place];
      cell.value.textContent = value === null ? "" : brief(value, 23);
      cell.gradient.textContent = gradient === null ? "" : `∂ ${brief(gradient, 21)}`;
      cell.full.textContent = `${cell.title}, ${graph.nodes[place].shape}\nvalue ${value ?? "unknown"}\ngradient ${gradient ?? "none"}`;
      body[place].cell[0].textContent = value ?? "";
      body[place].cell[1].textContent = gradient ?? "";
    });
  }
  page.follows(update);
  update();
  const label = `Graph of ${graph.objective}: ${graph.nodes.length} nodes`;
  const picture = draw(
    "svg",
    {
      viewBox: `-4 -4 ${width + 8} ${height + 8}`,
      width: width + 8,
      height: height + 8,
      role: "img",
      "aria-label": label,
    },
    edges,
    cells.map((cell) => cell.group),
  );
  const head = make(
    "tr",
    {},
    ["node", "shape", "value", "gradient"].map((name) => make("th", { scope: "col" }, name)),
  );
  const scroll = make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }, picture);
  if (marked >= 0) {
    requestAnimationFrame(() => (scroll.scrollLeft = boxes[marked].x + boxes[marked].width / 2 - scroll.clientWidth / 2));
  }
  return make(
    "div",
    {},
    state,
    scroll,
    make(
      "details",
      {},
      make("summary", {}, "The graph as a table"),
      make(
        "div",
        { class: "wide", tabindex: 0, role: "region", "aria-label": `${label}, as a table` },
        make(
          "table",
          {},
          make("caption", {}, label),
          make("thead", {}, head),
          make(
            "tbody",
            {},
            body.map((each) => each.row),
          ),
        ),
      ),
    ),
  );
}
