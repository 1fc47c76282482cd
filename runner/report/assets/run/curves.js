// Named numbers over rows: which to show, a logarithmic scale, smoothing, and a part of the rows.

function smoothed(values, weight) {
  if (!weight) return values;
  const found = new Float64Array(values.length);
  let mean = 0;
  let share = 0;
  for (let place = 0; place < values.length; place++) {
    if (Number.isFinite(values[place])) {
      mean = weight * mean + (1 - weight) * values[place];
      share = weight * share + (1 - weight);
      found[place] = mean / share;
    } else found[place] = NaN;
  }
  return found;
}

function curvesView(target, { curves, log }, page) {
  const state = { log, weight: 0, from: null, to: null };
  const shown = new Set(curves.flatMap((curve, place) => (curve.visible ? [place] : [])));
  const box = make("div", { class: "chart" });
  let chart = null;
  const readings = curves.map((curve) => make("output", {}, curve.last));
  const keys = curves.map((curve, place) => {
    const key = toggle(curve.name, shown.has(place), (on) => {
      if (on) shown.add(place);
      else shown.delete(place);
      paint();
    });
    const line = draw(
      "svg",
      { class: "key", viewBox: "0 0 24 8", "aria-hidden": "true" },
      draw("line", {
        x1: 0,
        x2: 24,
        y1: 4,
        y2: 4,
        stroke: lineColour(place),
        "stroke-width": 3,
        "stroke-dasharray": lineDash(place).join(" "),
      }),
    );
    key.append(line);
    return make("li", {}, key, readings[place]);
  });
  const where = make("output", { class: "where", "aria-live": "polite" });
  const from = make("input", { type: "number", min: 0, step: 1, on: { change: () => zoom() } });
  const to = make("input", { type: "number", min: 0, step: 1, on: { change: () => zoom() } });
  const smoothing = make("input", {
    type: "range",
    min: 0,
    max: 0.99,
    step: 0.01,
    value: 0,
    on: {
      input: () => {
        state.weight = Number(smoothing.value);
        paint();
      },
    },
  });

  function zoom() {
    const rows = chart?.data[0];
    if (!rows?.length) return;
    const low = from.value === "" ? rows[0] : Number(from.value);
    const high = to.value === "" ? rows[rows.length - 1] : Number(to.value);
    if (low < high) chart.setScale("x", { min: low, max: high });
  }

  function hovered(at) {
    if (at === null || at === undefined) return;
    where.textContent = `row ${chart.data[0][at]}`;
    [...shown]
      .sort((a, b) => a - b)
      .forEach((place, line) => {
        const values = chart.data[line + 1];
        let near = at;
        while (near > 0 && (values[near] === undefined || values[near] === null)) near--;
        readings[place].textContent = short(values[near]);
      });
  }

  function paint() {
    chart?.destroy();
    chart = null;
    const places = [...shown].sort((a, b) => a - b);
    if (!places.length) return;
    const rows = union(places.map((place) => curves[place].rows));
    const lines = places.map((place) => {
      const values = aligned(rows, curves[place].rows, smoothed(curves[place].values, state.weight));
      return {
        label: curves[place].name,
        stroke: lineColour(place),
        dash: lineDash(place),
        width: 1.5,
        values: state.log
          ? values.map((value) => (value > 0 ? value : value === undefined ? undefined : null))
          : values,
      };
    });
    const label = `Curves of ${places.map((place) => curves[place].name).join(", ")}`;
    chart = makeChart(box, { label, rows, lines, log: state.log, height: 320, chosen: page.row, hovered });
    if (from.value !== "" || to.value !== "") zoom();
  }

  target.append(
    make(
      "div",
      { class: "controls" },
      toggle("Logarithmic", log, (on) => {
        state.log = on;
        paint();
      }),
      named("Smoothing", smoothing),
      named("From row", from),
      named("To row", to),
      button("All rows", () => {
        from.value = to.value = "";
        paint();
      }),
    ),
    box,
    where,
    make("ul", { class: "keys" }, keys),
  );
  keyboard(box, () => chart);
  fits(box, () => chart);
  repaints(paint);
  page.follows(() => chart?.redraw(false));
  paint();
}
