// One row that differs at a time: each tensor on both sides, how far apart it is, and both sides as images.

const SIDES = ["expected", "found", "found - expected"];

function lead(text, address) {
  return address ? make("a", { href: `#${address}` }, text) : make("span", {}, text);
}

// One side as an image: coloured by a range that both sides share, described by its own.
function cellsPicture(said, cells, range, own) {
  const canvas = make("canvas", { class: "picture", role: "img", width: cells.width, height: cells.height });
  const zoom = Math.max(1, Math.min(28, Math.floor(280 / Math.max(cells.width, cells.height))));
  canvas.style.width = `${cells.width * zoom}px`;
  canvas.style.aspectRatio = `${cells.width} / ${cells.height}`;
  const colours = pictureColours(Number(range[0]), Number(range[1]));
  const pen = canvas.getContext("2d");
  const image = pen.createImageData(cells.width, cells.height);
  cells.cells.forEach((byte, cell) => image.data.set([...(byte === 255 ? BROKEN : colours[byte]), 255], cell * 4));
  pen.putImageData(image, 0, 0);
  const text = own[0] === "" ? said : `${said}: from ${own[0]} to ${own[1]}`;
  canvas.setAttribute("aria-label", text);
  return make("figure", {}, canvas, make("figcaption", {}, text));
}

// What a row says of a tensor: the numbers of one that differs, that one is equal, or that the row has none.
function cellsOf(tensor, at) {
  const shown = tensor.shown[at];
  if (shown) return [shown.error, shown.ulps, shown.expected, shown.found];
  if (tensor.equal[at] === null) return ["not in this row", "", "", ""];
  return ["equal", "0", tensor.equal[at], tensor.equal[at]];
}

function rowdifferenceView(target, data, page) {
  const { tensors } = data;
  const pictures = make("div", { class: "pictures" });
  const step = make("p", {});
  let chosen = Math.max(0, tensors.findIndex((tensor) => tensor.name === page.name));
  const rows = tensors.map((tensor, place) => {
    const cells = ["error", "ulps", "expected", "found"].map(() => make("td", { class: "number" }));
    const name = button(tensor.name, () => choose(place), { class: "line" });
    const address = { href: `#${tensor.line}`, class: "note", "aria-label": `line of ${tensor.name}` };
    const line = tensor.line ? make("a", address, "line") : null;
    const row = make("tr", {}, make("th", { scope: "row" }, name, " ", line), cells);
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
    const note = (text) => [make("p", { class: "note" }, text)];
    if (!shown) return note(`${tensor.name}: ${cellsOf(tensor, page.at())[0]}.`);
    if (!shown.cells) return note(`${tensor.name} has no picture: choose another tensor.`);
    const own = (side) => (side === 2 ? shown.ranges[1] : shown.own[side]);
    return shown.cells.map(
      (cells, side) => cells && cellsPicture(SIDES[side], cells, shown.ranges[side === 2 ? 1 : 0], own(side)),
    );
  }

  function update() {
    const at = page.at();
    tensors.forEach((tensor, place) => {
      const shown = tensor.shown[at];
      const { row, cells } = rows[place];
      const texts = cellsOf(tensor, at);
      const whole = shown?.whole ?? [texts[2], texts[3]];
      cells.forEach((cell, column) => {
        cell.textContent = texts[column];
        cell.title = column > 1 ? whole[column - 2] : "";
      });
      row.className = shown ? "changed" : "missing";
      row.classList.toggle("marked", place === chosen);
    });
    step.replaceChildren("Step ", lead(page.rows[at].path || page.rows[at].step, data.lines[at]));
    pictures.replaceChildren(...show(tensors[chosen], tensors[chosen].shown[at]).filter(Boolean));
  }

  list.value = chosen;
  const head = ["tensor", "relative error", "largest ULP", "expected, where farthest apart", "found there"];
  const table = make(
    "table",
    { class: "sides" },
    make("caption", {}, "‖found - expected‖ / ‖expected‖ of each tensor, and the element that is farthest apart"),
    make("thead", {}, make("tr", {}, head.map((name) => make("th", { scope: "col" }, name)))),
    make("tbody", {}, rows.map(({ row }) => row)),
  );
  target.append(
    stepper(page),
    step,
    make("div", { class: "wide", tabindex: 0, role: "region", "aria-label": "Tensors of this row" }, table),
    make("div", { class: "controls" }, control),
    pictures,
  );
  page.follows(update);
  update();
}
