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

// The last place of ascending rows that is not after a row; -1 before the first.
function placeOf(rows, row) {
  let [low, high] = [0, rows.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (rows[middle] <= row) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

// A curve in one row: its value there; without one, that there is none, and the last value before.
function readingOf(curve, row, weight) {
  const place = placeOf(curve.rows, row);
  if (place < 0) return "–";
  const value = short(curve.values[place]);
  const found = curve.rows[place];
  if (found !== row) return curve.thinned ? `${value} in row ${found}` : `– (row ${found}: ${value})`;
  return weight ? `${value}, smoothed ${short(smoothed(curve.values, weight)[place])}` : value;
}

function brokenRows(curves) {
  return union(curves.map((curve) => curve.rows.filter((_, place) => !Number.isFinite(curve.values[place]))));
}

function keyLine(place) {
  const line = { x1: 0, x2: 24, y1: 4, y2: 4, stroke: lineColour(place), "stroke-width": 3 };
  return draw(
    "svg",
    { class: "key", viewBox: "0 0 24 8", "aria-hidden": "true" },
    draw("line", { ...line, "stroke-dasharray": lineDash(place).join(" ") }),
  );
}

function curvesView(target, { curves, log }, page) {
  const state = { log, weight: 0, low: null, high: null, whole: true };
  const shown = new Set(curves.flatMap((curve, place) => (curve.visible ? [place] : [])));
  const box = make("div", { class: "chart" });
  let chart = null;
  const readings = curves.map(() => make("output", {}));
  const keys = curves.map((curve, place) => {
    const key = toggle(curve.name, shown.has(place), (on) => {
      if (on) shown.add(place);
      else shown.delete(place);
      paint();
    });
    key.append(keyLine(place));
    return make("li", {}, key, readings[place], curve.range ? make("span", { class: "note" }, curve.range) : null);
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

  // The row that the numbers below the chart are of: the one under the cursor, else the chosen one, in what is seen.
  function tell(at) {
    const rows = chart?.data[0] ?? union(curves.map((curve) => curve.rows));
    if (!rows.length) return;
    const [first, last] = [state.low ?? rows[0], state.high ?? rows[rows.length - 1]];
    let row = page.row();
    if (at !== null && at !== undefined) row = rows[at];
    else if (!(state.whole ? row >= 0 : row >= first && row <= last)) row = rows[Math.max(0, placeOf(rows, last))];
    where.textContent = page.words(row);
    curves.forEach((curve, place) => (readings[place].textContent = readingOf(curve, row, state.weight)));
  }

  function paint() {
    const kept = state.whole ? null : { min: state.low, max: state.high };
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
        spanGaps: false,
        points: curves[place].rows.length <= 30 ? { show: true, size: 7, fill: lineColour(place) } : {},
        values: state.log
          ? values.map((value) => (value > 0 ? value : value === undefined ? undefined : null))
          : values,
      };
    });
    const label = `Curves of ${places.map((place) => curves[place].name).join(", ")}`;
    const options = { label, rows, lines, log: state.log, height: 320, chosen: page.row, hovered: tell };
    chart = makeChart(box, {
      ...options,
      broken: brokenRows(places.map((place) => curves[place])),
      picked: (row) => page.goTo(row),
      zoomed(low, high) {
        [state.low, state.high] = [low, high];
        state.whole = low <= rows[0] && high >= rows[rows.length - 1];
        [from.value, to.value] = state.whole ? ["", ""] : [Math.ceil(low), Math.floor(high)];
        tell(null);
      },
    });
    if (kept) chart.setScale("x", kept);
    tell(null);
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
        state.whole = true;
        paint();
      }),
    ),
    box,
    where,
    make("ul", { class: "keys" }, keys),
    make("p", { class: "note" }, page.rows.length ? "The dashed line is the chosen row; a click on the chart chooses another." : ""),
  );
  keyboard(box, () => chart, (row) => page.goTo(row));
  fits(box, () => chart);
  repaints(paint);
  page.follows(() => {
    chart?.redraw(false);
    tell(null);
  });
  paint();
}
