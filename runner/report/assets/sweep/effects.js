// What each value does to the objective: a dot for each point, and a box for each value if there are few.

const MOST_BOXES = 12;
const FRAME = { left: 62, right: 12, top: 10, bottom: 34 };

function quartiles(values) {
  const sorted = Float64Array.from(values).sort();
  return [0.25, 0.5, 0.75].map((part) => {
    const at = part * (sorted.length - 1);
    const low = Math.floor(at);
    return sorted[low] + (at - low) * ((sorted[low + 1] ?? sorted[low]) - sorted[low]);
  });
}

function effectsView(target, _, page) {
  const results = page.columns.filter((column) => column.kind === "result" && column.numbers);
  if (!page.count || !results.length) return;
  let result = page.column("objective") ?? results[0]; // not a mean, which has no spread
  const box = make("div", { class: "effects" });
  const [control, list] = choice(
    "Result",
    results.map((column) => column.name),
    (place) => {
      result = results[place];
      paint();
    },
  );
  list.value = Math.max(0, results.indexOf(result));
  const plots = page.axes.map((axis) => oneEffect(box, axis, page, () => result));
  target.append(chooser(page), make("div", { class: "controls" }, control), box);
  const paint = () => plots.forEach((again) => again());
  page.follows(paint);
}

function oneEffect(target, axis, page, result) {
  const figure = make("figure", {});
  const inner = make("div", {});
  figure.append(inner, make("figcaption", {}, axis.name));
  target.append(figure);
  let spots = [];

  function boxes(pen, across, up, colours, x, y) {
    const groups = new Map();
    for (const place of page.shown) {
      const [value, found] = [valueOf(axis, place), valueOf(result(), place)];
      if (across.at(value) === null || up.at(found) === null) continue;
      if (!groups.has(value)) groups.set(value, []);
      groups.get(value).push(found);
    }
    if (groups.size > MOST_BOXES) return;
    const half = Math.min(16, 90 / Math.max(1, groups.size));
    for (const [value, found] of groups) {
      if (found.length < 3) continue;
      const [low, middle, high] = quartiles(found).map((each) => y(up.at(each)));
      const at = x(across.at(value));
      pen.fillStyle = colours.panel;
      pen.strokeStyle = colours.ink;
      pen.lineWidth = 1;
      pen.fillRect(at - half, high, 2 * half, low - high);
      pen.strokeRect(at - half, high, 2 * half, low - high);
      pen.lineWidth = 3;
      pen.beginPath();
      pen.moveTo(at - half, middle);
      pen.lineTo(at + half, middle);
      pen.stroke();
    }
  }

  function paint(pen, width, height, colours) {
    const every = [...Array(page.count).keys()];
    const [across, up] = [scaleOf(axis, every), scaleOf(result(), page.shown)];
    const [wide, tall] = [width - FRAME.left - FRAME.right, height - FRAME.top - FRAME.bottom];
    const x = (part) => FRAME.left + (0.06 + 0.88 * part) * wide;
    const y = (part) => FRAME.top + (0.96 - 0.92 * part) * tall;
    pen.clearRect(0, 0, width, height);
    pen.strokeStyle = colours.line;
    pen.fillStyle = colours.ink;
    for (const [part, text] of spaced(up.ticks, y, 15)) {
      pen.beginPath();
      pen.moveTo(FRAME.left, y(part));
      pen.lineTo(width - FRAME.right, y(part));
      pen.stroke();
      pen.textAlign = "right";
      pen.fillText(shortenedTo(pen, text, FRAME.left - 8), FRAME.left - 6, y(part) + 4);
    }
    pen.textAlign = "center";
    for (const [part, text] of spaced(across.ticks, x, Math.max(40, (0.9 * wide) / MOST_BOXES))) {
      pen.fillText(shortenedTo(pen, text, (0.9 * wide) / Math.min(MOST_BOXES, across.ticks.length)), x(part), height - 18);
    }
    if (across.log) pen.fillText("logarithmic", FRAME.left + wide / 2, height - 3);
    boxes(pen, across, up, colours, x, y);
    spots = [];
    for (const place of [...page.shown].reverse()) {
      const [right, over] = [across.at(valueOf(axis, place)), up.at(valueOf(result(), place))];
      if (right === null || over === null) continue;
      spots.push([place, x(right), y(over)]);
      dot(pen, x(right), y(over), 2.5, colourOf(page, place, colours));
    }
    const chosen = spots.find(([place]) => place === page.chosen);
    if (chosen) dot(pen, chosen[1], chosen[2], 6, colours.accent);
  }

  const { canvas, again } = makeCanvas(inner, `The results by ${axis.name}. Left and right choose a point.`, 220, paint);
  canvas.addEventListener("click", (event) => {
    let [found, least] = [null, 900];
    for (const [place, x, y] of spots) {
      const distance = (x - event.offsetX) ** 2 + (y - event.offsetY) ** 2;
      if (distance < least) [found, least] = [place, distance];
    }
    if (found !== null) page.choose(found);
  });
  moves(canvas, page);
  return again;
}

function dot(pen, x, y, size, colour) {
  pen.fillStyle = colour;
  pen.beginPath();
  pen.arc(x, y, size, 0, 2 * Math.PI);
  pen.fill();
}
