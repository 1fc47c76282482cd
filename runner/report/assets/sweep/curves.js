// The curves of all points over one another; the better a point, the stronger its colour, and the chosen one stands out.

function pointcurvesView(target, { quantities }, page) {
  const box = make("div", { class: "chart" });
  const note = make("output", { class: "where", "aria-live": "polite" });
  let [quantity, chart, log, failed] = [quantities[0], null, quantities[0].log, false];

  const span = (place) => [place ? quantity.ends[place - 1] : 0, quantity.ends[place]];
  const usable = (value) => Number.isFinite(value) && (!log || value > 0);

  // The points that decide the range: those that failed only if all did, because a curve that diverges hides the others.
  function deciding() {
    const status = page.column("status");
    const sound = page.shown.filter((place) => valueOf(status, place) !== "failed");
    return failed || !sound.length ? page.shown : sound;
  }

  function extent(from, to) {
    let [low, high] = [Infinity, -Infinity];
    for (const place of deciding()) {
      const [start, end] = span(place);
      for (let at = start; at < end; at++) {
        const value = quantity.values[at];
        if (quantity.rows[at] < from || quantity.rows[at] > to || !usable(value)) continue;
        [low, high] = [Math.min(low, value), Math.max(high, value)];
      }
    }
    if (low > high) return log ? [0.1, 1] : [0, 1];
    return low === high ? (log ? [low / 2, high * 2] : [low - 1, high + 1]) : [low, high];
  }

  function trace(drawn, place) {
    const [start, end] = span(place);
    const pen = drawn.ctx;
    let started = false;
    pen.beginPath();
    for (let at = start; at < end; at++) {
      const value = quantity.values[at];
      if (!usable(value)) continue;
      const [x, y] = [drawn.valToPos(quantity.rows[at], "x", true), drawn.valToPos(value, "y", true)];
      if (started) pen.lineTo(x, y);
      else pen.moveTo(x, y);
      started = true;
    }
    pen.stroke();
  }

  function lines(drawn) {
    const [pen, colours, { left, top, width, height }] = [drawn.ctx, theme(), drawn.bbox];
    pen.save();
    pen.beginPath();
    pen.rect(left, top, width, height);
    pen.clip();
    pen.lineWidth = devicePixelRatio;
    pen.globalAlpha = page.shown.length > 100 ? 0.45 : 0.8;
    for (const place of [...page.shown].sort((one, other) => other - one)) {
      pen.strokeStyle = colourOf(page, place, colours);
      trace(drawn, place);
    }
    if (page.chosen !== null) {
      pen.globalAlpha = 1;
      pen.lineWidth = 3 * devicePixelRatio;
      pen.strokeStyle = colours.accent;
      trace(drawn, page.chosen);
    }
    pen.restore();
  }

  function nearest(x, y) {
    let [found, least] = [null, Infinity];
    for (const place of page.shown) {
      const [start, end] = span(place);
      for (let at = start; at < end; at++) {
        if (!usable(quantity.values[at])) continue;
        const across = chart.valToPos(quantity.rows[at], "x") - x;
        const down = chart.valToPos(quantity.values[at], "y") - y;
        const distance = across * across + down * down;
        if (distance < least) [found, least] = [place, distance];
      }
    }
    return found;
  }

  function paint() {
    chart?.destroy();
    const rows = union([quantity.rows.slice().sort()]);
    const ends = rows.length > 1 ? [rows[0], rows[rows.length - 1]] : [rows[0] ?? 0, (rows[0] ?? 0) + 1];
    chart = makeChart(box, {
      label: `${quantity.name} of ${page.shown.length} points over rows`,
      rows: ends,
      lines: [{ label: quantity.name, stroke: "transparent", points: { show: false }, values: extent(-Infinity, Infinity) }],
      log,
      height: 340,
      chosen: page.row,
      over: lines,
      range: (drawn) => extent(drawn.scales.x.min ?? -Infinity, drawn.scales.x.max ?? Infinity),
    });
    let pressed = null;
    chart.over.addEventListener("mousedown", (event) => (pressed = event.offsetX));
    chart.over.addEventListener("click", (event) => {
      if (pressed === null || Math.abs(event.offsetX - pressed) > 3) return;
      const place = nearest(event.offsetX, event.offsetY);
      if (place !== null) page.choose(place);
    });
    update();
  }

  function update() {
    if (page.chosen === null) return;
    const [start, end] = span(page.chosen);
    note.textContent =
      start < end
        ? `${said(page, page.chosen)}; ${quantity.name} ${short(quantity.values[end - 1])} in row ${quantity.rows[end - 1]}`
        : `point ${page.number(page.chosen)} has no curve`;
  }

  const scale = toggle("Logarithmic", log, (on) => {
    log = on;
    paint();
  });
  const [control] = choice(
    "Column",
    quantities.map((each) => each.name),
    (place) => {
      quantity = quantities[place];
      log = scale.querySelector("input").checked = quantity.log;
      paint();
    },
  );
  const all = button("All rows", paint);
  const whole = toggle("Whole range of points that failed", failed, (on) => {
    failed = on;
    paint();
  });
  const some = page.column("status").texts.includes("failed") ? whole : null;
  target.append(chooser(page), make("div", { class: "controls" }, control, scale, some, all), box, note);
  box.onkeydown = (event) => {
    const move = { ArrowUp: -1, ArrowDown: 1, ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (move === undefined) return;
    event.preventDefault();
    page.move(move);
  };
  fits(box, () => chart);
  repaints(paint);
  page.follows(() => {
    chart?.redraw(false, true);
    update();
  });
  paint();
}
