// Heat maps over rows: one line of cells for each tensor, coloured by the logarithm of a number.

const LINE = 22;

function heatmapView(target, { maps }, page) {
  const canvas = make("canvas", { tabindex: 0, role: "img" });
  const names = make("div", { class: "names", "aria-hidden": "true" });
  const said = make("output", { class: "where", "aria-live": "polite" });
  const scale = make("p", { class: "scale" });
  let [map, at, own] = [maps[0], [0, 0], false];

  function range(line) {
    const cells = map.starts.length;
    let [low, high] = [Infinity, -Infinity];
    const [first, last] = line === null ? [0, map.values.length] : [line * cells, (line + 1) * cells];
    for (let place = first; place < last; place++) {
      const value = map.values[place];
      if (value > 0 && Number.isFinite(value)) [low, high] = [Math.min(low, value), Math.max(high, value)];
    }
    return low <= high ? [low, high] : null;
  }

  function colour(value, limits) {
    if (Number.isNaN(value)) return null;
    if (!Number.isFinite(value)) return BROKEN;
    if (value === 0 || limits === null) return between(CIVIDIS, 0);
    const [low, high] = limits.map(Math.log);
    return between(CIVIDIS, high > low ? (Math.log(value) - low) / (high - low) : 0.5);
  }

  function paint() {
    const cells = map.starts.length;
    const lines = map.names.length;
    const ratio = devicePixelRatio;
    const width = Math.max(100, canvas.parentElement.clientWidth - names.offsetWidth - 8);
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(lines * LINE * ratio);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${lines * LINE}px`;
    const pen = canvas.getContext("2d");
    const colours = theme();
    const all = range(null);
    pen.fillStyle = colours.panel;
    pen.fillRect(0, 0, canvas.width, canvas.height);
    for (let line = 0; line < lines; line++) {
      const limits = own ? range(line) : all;
      for (let cell = 0; cell < cells; cell++) {
        const found = colour(map.values[line * cells + cell], limits);
        if (found === null) continue;
        const [left, right] = [
          Math.floor((cell * canvas.width) / cells),
          Math.floor(((cell + 1) * canvas.width) / cells),
        ];
        pen.fillStyle = `rgb(${found.join(" ")})`;
        pen.fillRect(left, line * LINE * ratio + 1, Math.max(1, right - left), LINE * ratio - 2);
      }
    }
    const cell = map.starts.findLastIndex((first) => first <= page.row());
    pen.strokeStyle = colours.accent;
    pen.lineWidth = 2 * ratio;
    pen.strokeRect((cell * canvas.width) / cells, 0, Math.max(2, canvas.width / cells), canvas.height);
    scale.textContent =
      all === null
        ? "No number above 0."
        : own
          ? "Each line has its own scale, from dark for its least to bright for its largest."
          : `From dark for ${short(all[0])} to bright for ${short(all[1])}, logarithmic; magenta is not finite, blank is nothing.`;
  }

  function tell() {
    const [line, cell] = at;
    const [first, last] = [map.starts[cell], map.ends[cell]];
    const value = map.values[line * map.starts.length + cell];
    const rows = first === last ? `row ${first}` : `rows ${first} to ${last}`;
    const number = Number.isFinite(value) ? short(value) : Number.isNaN(value) ? "nothing" : "not finite";
    said.textContent = `${map.names[line]}, ${rows}: ${number}`;
  }

  function choose(place) {
    map = maps[place];
    at = [0, map.starts.length - 1];
    names.replaceChildren(...map.names.map((name) => make("div", { title: name }, name)));
    canvas.setAttribute(
      "aria-label",
      `${map.title}: ${map.names.length} tensors. The arrow keys move from cell to cell.`,
    );
    paint();
    tell();
  }

  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    const cell = Math.floor(((event.clientX - box.left) / box.width) * map.starts.length);
    const line = Math.floor(((event.clientY - box.top) / box.height) * map.names.length);
    at = [Math.min(Math.max(line, 0), map.names.length - 1), Math.min(Math.max(cell, 0), map.starts.length - 1)];
    tell();
  });
  canvas.addEventListener("keydown", (event) => {
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!move) return;
    event.preventDefault();
    at = [
      Math.min(Math.max(at[0] + move[0], 0), map.names.length - 1),
      Math.min(Math.max(at[1] + move[1], 0), map.starts.length - 1),
    ];
    tell();
  });
  const [control] = choice(
    "Show",
    maps.map((each) => each.title),
    choose,
  );
  target.append(
    make(
      "div",
      { class: "controls" },
      control,
      toggle("A scale for each line", false, (on) => {
        own = on;
        paint();
      }),
    ),
    make("div", { class: "heat" }, names, canvas),
    scale,
    said,
  );
  new ResizeObserver(paint).observe(target);
  repaints(paint);
  page.follows(paint);
  choose(0);
}
