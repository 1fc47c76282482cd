// One row that differs at a time: each tensor on both sides, how far apart it is, and both sides as images.

const SIDES = ["expected", "found", "found - expected"];

function lead(text, address) {
  return address ? make("a", { href: `#${address}` }, text) : make("span", {}, text);
}

function cellsPicture(said, cells, range) {
  const canvas = make("canvas", { class: "picture", role: "img", width: cells.width, height: cells.height });
  const zoom = Math.max(1, Math.min(28, Math.floor(280 / Math.max(cells.width, cells.height))));
  canvas.style.width = `${cells.width * zoom}px`;
  canvas.style.aspectRatio = `${cells.width} / ${cells.height}`;
  const colours = pictureColours(Number(range[0]), Number(range[1]));
  const pen = canvas.getContext("2d");
  const image = pen.createImageData(cells.width, cells.height);
  cells.cells.forEach((byte, cell) => image.data.set([...(byte === 255 ? BROKEN : colours[byte]), 255], cell * 4));
  pen.putImageData(image, 0, 0);
  const text = range[0] === "" ? said : `${said}: from ${range[0]} to ${range[1]}`;
  canvas.setAttribute("aria-label", text);
  return make("figure", {}, canvas, make("figcaption", {}, text));
}

function rowdifferenceView(target, data) {
  const page = makePage(data);
  const { tensors } = data;
  const pictures = make("div", { class: "pictures" });
  const step = make("p", {});
  let chosen = Math.max(0, tensors.findIndex((tensor) => tensor.name === page.name));
  const rows = tensors.map((tensor, place) => {
    const cells = ["error", "ulps", "expected", "found"].map(() => make("td", { class: "number" }));
    const row = make("tr", {}, make("th", { scope: "row" }, lead(tensor.name, tensor.line)), cells);
    row.addEventListener("click", () => choose(place));
    return { row, cells };
  });
  const [control, list] = choice(
    "Tensor",
    tensors.map((tensor) => tensor.name),
    (place) => choose(place),
  );

  function choose(place) {
    chosen = place;
    list.value = place;
    update();
  }

  function show(tensor, shown) {
    if (!shown) return [make("p", { class: "note" }, `${tensor.name} does not differ in this row.`)];
    if (!shown.cells) return [];
    return shown.cells.map((cells, side) => cells && cellsPicture(SIDES[side], cells, shown.ranges[side === 2 ? 1 : 0]));
  }

  function update() {
    const at = page.at();
    tensors.forEach((tensor, place) => {
      const shown = tensor.shown[at];
      const { row, cells } = rows[place];
      const texts = shown ? [shown.error, shown.ulps, shown.expected, shown.found] : ["equal", "", "", ""];
      cells.forEach((cell, column) => {
        cell.textContent = texts[column];
        cell.title = texts[column].length > 30 ? texts[column] : "";
      });
      row.className = shown ? "changed" : "missing";
      row.classList.toggle("marked", place === chosen);
    });
    step.replaceChildren("Step ", lead(page.rows[at].path || page.rows[at].step, data.lines[at]));
    pictures.replaceChildren(...show(tensors[chosen], tensors[chosen].shown[at]).filter(Boolean));
  }

  list.value = chosen;
  const head = ["tensor", "relative error", "largest ULP", "expected", "found"];
  const table = make(
    "table",
    { class: "sides" },
    make("caption", {}, "Tensors that differ in this row"),
    make("thead", {}, make("tr", {}, head.map((name) => make("th", { scope: "col" }, name)))),
    make("tbody", {}, rows.map(({ row }) => row)),
  );
  target.append(
    stepper(page),
    step,
    make("div", { class: "wide", tabindex: 0, role: "region", "aria-label": "Tensors that differ in this row" }, table),
    make("div", { class: "controls" }, control),
    pictures,
  );
  page.follows(update);
  update();
}
