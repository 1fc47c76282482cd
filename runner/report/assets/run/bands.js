// The distribution of one tensor over rows: bands between quantiles, and the median.

function bandsView(target, { tensors }, page) {
  const box = make("div", { class: "chart" });
  const said = make("output", { class: "where", "aria-live": "polite" });
  let [tensor, chart] = [tensors[0], null];

  function lines() {
    const count = tensor.labels.length;
    return tensor.labels.map((label, place) => {
      const middle = place === (count - 1) / 2;
      const values = Array.from(
        tensor.values.subarray(place * tensor.rows.length, (place + 1) * tensor.rows.length),
        (value) => (Number.isFinite(value) ? value : null),
      );
      return { label, values, stroke: middle ? LINES[1] : `${LINES[0]}80`, width: middle ? 2 : 1 };
    });
  }

  // The numbers of the row under the cursor, else of the chosen row, or of the last one before it.
  function tell(at) {
    const place = at ?? Math.max(0, placeOf(tensor.rows, page.row()));
    const parts = tensor.labels.map((label, line) => `${label} ${short(tensor.values[line * tensor.rows.length + place])}`);
    const broken = tensor.broken?.[place];
    const elements = broken ? `; ${broken.toLocaleString("en")} elements are not finite, and no part of this` : "";
    said.textContent = `${tensor.name}, row ${tensor.rows[place]}: ${parts.join(", ")}${elements}`;
  }

  function paint() {
    chart?.destroy();
    const count = tensor.labels.length;
    const bands = [];
    for (let place = 0; place < (count - 1) / 2; place++)
      bands.push({ series: [count - place, place + 1], fill: `${LINES[0]}${["22", "33", "44"][place]}` });
    chart = makeChart(box, {
      label: `Distribution of ${tensor.name}`,
      rows: tensor.rows,
      lines: lines(),
      bands,
      log: false,
      height: 260,
      chosen: page.row,
      hovered: tell,
      picked: (row) => page.goTo(row),
      broken: tensor.rows.filter((_, place) => tensor.broken?.[place]),
    });
    tell(null);
  }

  const [control, list] = choice(
    "Tensor",
    tensors.map((each) => `${each.name}  ${each.kind}`),
    (place) => {
      tensor = tensors[place];
      paint();
    },
  );
  target.append(make("div", { class: "controls" }, control), box, said);
  const wanted = tensors.findIndex((each) => each.name === page.name);
  if (wanted >= 0) {
    list.value = wanted;
    tensor = tensors[wanted];
  }
  keyboard(box, () => chart, (row) => page.goTo(row));
  fits(box, () => chart);
  repaints(paint);
  page.follows(() => {
    chart?.redraw(false);
    tell(null);
  });
  paint();
}
