// Charts over rows: uPlot with the page's colours, a line at the chosen row, and the keyboard.

const WHOLE = Array.from({ length: 10 }, (_, power) => [1, 2, 5].map((step) => step * 10 ** power)).flat();

function union(lists) {
  const only = lists.filter((list, place) => lists.indexOf(list) === place);
  if (only.length === 1) return only[0];
  const all = new Float64Array(only.reduce((sum, list) => sum + list.length, 0));
  let at = 0;
  for (const list of only) {
    all.set(list, at);
    at += list.length;
  }
  all.sort();
  return all.filter((value, place) => place === 0 || value !== all[place - 1]);
}

function aligned(rows, own, values) {
  if (rows === own) return Array.from(values, (value) => (Number.isFinite(value) ? value : null));
  const found = new Array(rows.length).fill(undefined);
  let at = 0;
  for (let place = 0; place < own.length; place++) {
    while (rows[at] < own[place]) at++;
    found[at] = Number.isFinite(values[place]) ? values[place] : null;
  }
  return found;
}

// The marks of a logarithmic axis: powers of ten, with 2 and 5 times them where there is room.
function powers(low, high) {
  const [first, last] = [Math.ceil(Math.log10(low) - 1e-9), Math.floor(Math.log10(high) + 1e-9)];
  const leap = Math.max(1, Math.ceil((last - first) / 8));
  const steps = last - first < 3 ? [1, 2, 5] : [1];
  const marks = [];
  for (let power = first - 1; power <= last; power += leap) {
    for (const step of steps) marks.push(Number(`${step}e${power}`));
  }
  return marks.filter((value) => value >= low && value <= high);
}

// The marks of a linear axis, with 0 for what is left of it by rounding.
function rounded(marks) {
  const least = 1e-9 * Math.max(...marks.map(Math.abs));
  return marks.map((value) => (Math.abs(value) < least ? 0 : value));
}

function room(labels) {
  return Math.max(64, ...(labels ?? []).map((label) => 7 * label.length + 18));
}

// Short bars at the top of a chart, at the rows where a number is not finite.
function markBroken(chart, rows) {
  const pen = chart.ctx;
  pen.save();
  pen.fillStyle = `rgb(${BROKEN.join(" ")})`;
  const width = 3 * devicePixelRatio;
  for (const row of rows) {
    const x = Math.round(chart.valToPos(row, "x", true));
    if (x >= chart.bbox.left && x <= chart.bbox.left + chart.bbox.width) pen.fillRect(x - width / 2, chart.bbox.top, width, 4 * width);
  }
  pen.restore();
}

function makeChart(target, options) {
  const { label, rows, lines, bands, log, height, chosen, hovered, over, range, broken, picked, zoomed } = options;
  const colours = theme();
  const grid = { stroke: colours.line, width: 1 };
  const font = "12px system-ui, sans-serif";
  const axis = () => ({ stroke: colours.ink, font, labelFont: font, grid, ticks: grid });
  const mark = (chart) => {
    const x = Math.round(chart.valToPos(chosen(), "x", true));
    const { left, top, width, height: tall } = chart.bbox;
    if (x < left || x > left + width) return;
    const pen = chart.ctx;
    pen.save();
    pen.strokeStyle = colours.accent;
    pen.lineWidth = devicePixelRatio;
    pen.setLineDash([4, 4]);
    pen.beginPath();
    pen.moveTo(x, top);
    pen.lineTo(x, top + tall);
    pen.stroke();
    pen.restore();
  };
  const settings = {
    width: Math.max(200, target.clientWidth),
    height,
    legend: { show: false },
    scales: { x: { time: false }, y: { distr: log ? 3 : 1, ...(range ? { range } : {}) } },
    axes: [
      { ...axis(), label: "row", labelSize: 16, labelGap: 0, size: 30, incrs: WHOLE },
      {
        ...axis(),
        size: (chart, labels) => room(labels),
        ...(log
          ? {
              incrs: (chart, place, low, high) => [Math.max(5, high - low)], // its own are too small for 1e30
              splits: (chart, place, low, high) => powers(low, high),
              filter: (chart, marks) => marks,
              values: (chart, marks) => marks.map(short),
            }
          : { values: (chart, marks) => rounded(marks).map(short) }),
      },
    ],
    cursor: { points: { size: 6 }, drag: { x: true, y: false } },
    series: [
      {},
      ...lines.map(({ label: name, values: _, ...look }) => ({ label: name, spanGaps: true, ...look })),
    ],
    bands: bands ?? [],
    hooks: {
      draw: [...(over ? [over] : []), (chart) => markBroken(chart, broken ?? []), mark],
      setCursor: [(chart) => hovered?.(chart.cursor.idx)],
      setScale: [(chart, scale) => scale === "x" && zoomed?.(chart.scales.x.min, chart.scales.x.max)],
    },
  };
  const chart = new uPlot(settings, [rows, ...lines.map((line) => line.values)], target);
  if (picked) {
    let before = null;
    chart.over.addEventListener("click", (event) => {
      if (event.detail === 1) before = chosen();
      if (chart.cursor.idx !== null) picked(rows[chart.cursor.idx]);
    });
    chart.over.addEventListener("dblclick", () => picked(before)); // it shows all rows, and chooses none
  }
  target.setAttribute("tabindex", "0");
  target.setAttribute("role", "img");
  target.setAttribute(
    "aria-label",
    `${label}. Left and right move along the rows${picked ? ", Enter chooses one" : ""}; drag to zoom, double-click to see all.`,
  );
  return chart;
}

function keyboard(target, chart, picked) {
  target.onkeydown = (event) => {
    if (event.key === "Enter" && chart()?.cursor.idx !== null) picked?.(chart().data[0][chart().cursor.idx]);
    const move = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20, Home: -Infinity, End: Infinity }[event.key];
    const now = chart();
    if (move === undefined || !now) return;
    event.preventDefault();
    const rows = now.data[0];
    const at = Math.min(Math.max((now.cursor.idx ?? 0) + move, 0), rows.length - 1);
    now.setCursor({ left: now.valToPos(rows[at], "x"), top: now.bbox.height / devicePixelRatio / 2 });
  };
}

function fits(target, chart) {
  new ResizeObserver(() => {
    const now = chart();
    const width = Math.max(200, target.clientWidth);
    if (now && now.width !== width) now.setSize({ width, height: now.height });
  }).observe(target);
}
