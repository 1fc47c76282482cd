// Heat maps over rows: one line of cells for each tensor, coloured by the logarithm of a number.

const LINE = 22;

function heatmapView(target, { maps }, page) {
  const canvas = make("canvas", { tabindex: 0, role: "img" });
  const names = make("div", { class: "names", "aria-hidden": "true" });
  const said = make("output", { class: "where", "aria-live": "polite" });
  const ends = make("div", { class: "ends", "aria-hidden": "true" });
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
    return low <= high ? [Math.min(low, high / 2), high] : null; // rounding is not made to look like a range
  }

  function colour(value, limits) {
    if (Number.isNaN(value)) return null;
    if (!Number.isFinite(value)) return BROKEN;
    const [low, high] = limits.map(Math.log);
    return between(CIVIDIS, 0.1 + (0.9 * (Math.log(value) - low)) / (high - low)); // the darkest are seen on dark paper
  }

  function frame(pen, colours, left, top, width, height) {
    pen.strokeStyle = colours.faint;
    pen.lineWidth = 1;
    pen.strokeRect(left + 1.5, top + 2.5, Math.max(1, width - 3), height - 5);
  }

  function paint() {
    const cells = map.starts.length;
    const lines = map.names.length;
    const ratio = devicePixelRatio;
    const width = Math.max(100, target.clientWidth - names.offsetWidth - 8);
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
        const value = map.values[line * cells + cell];
        const [left, right] = [
          Math.floor((cell * canvas.width) / cells),
          Math.floor(((cell + 1) * canvas.width) / cells),
        ];
        if (value === 0) frame(pen, colours, left, line * LINE * ratio, right - left, LINE * ratio);
        const found = value === 0 ? null : colour(value, limits);
        if (found === null) continue;
        pen.fillStyle = `rgb(${found.join(" ")})`;
        pen.fillRect(left, line * LINE * ratio + 1, Math.max(1, right - left), LINE * ratio - 2);
      }
    }
    const cell = map.starts.findLastIndex((first) => first <= page.row());
    pen.strokeStyle = colours.accent;
    pen.lineWidth = 2 * ratio;
    const [left, wide] = [(cell * canvas.width) / cells, Math.max(2, canvas.width / cells)];
    const inner = Math.min(left, canvas.width - wide) + pen.lineWidth / 2;
    pen.strokeRect(inner, pen.lineWidth / 2, wide - pen.lineWidth, canvas.height - pen.lineWidth);
    const signs = "An empty frame is 0, magenta is not finite, and blank is nothing.";
    if (all === null) scale.textContent = `No number above 0. ${signs}`;
    else if (own) scale.textContent = `Each line has its own scale: bright for its largest, dark for half of that or less. ${signs}`;
    else scale.textContent = `From dark for ${short(all[0])} to bright for ${short(all[1])}, logarithmic. ${signs}`;
    ends.replaceChildren(
      make("span", {}, `row ${map.starts[0]}`),
      make("span", {}, `row ${map.ends[cells - 1]}`),
    );
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
    at = [0, Math.max(0, placeOf(map.starts, page.row()))];
    names.replaceChildren(...map.names.map((name) => make("div", { title: name }, name)));
    canvas.setAttribute(
      "aria-label",
      `${map.title}: ${map.names.length} tensors. The arrow keys move from cell to cell, and Enter chooses a row.`,
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
  canvas.addEventListener("click", () => page.goTo(map.starts[at[1]]));
  canvas.addEventListener("keydown", (event) => {
    if (event.key === "Enter") page.goTo(map.starts[at[1]]);
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
    make("div", { class: "heat" }, names, make("div", { class: "cells" }, canvas, ends)),
    scale,
    said,
  );
  new ResizeObserver(paint).observe(target);
  repaints(paint);
  page.follows(() => {
    paint();
    at[1] = Math.max(0, placeOf(map.starts, page.row()));
    tell();
  });
  choose(0);
}
