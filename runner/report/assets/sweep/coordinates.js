// Parallel coordinates: an axis for each value and for the objective, and a line for each point.

const TALL = 320;
const EDGE = { top: 34, bottom: 14, side: 46 };

function coordinatesView(target, _, page) {
  const columns = [...page.axes, ...(page.objective ? [page.objective] : [])];
  const scales = columns.map((column) => scaleOf(column, [...Array(page.count).keys()]));
  const inner = make("div", {});
  inner.style.minWidth = `${Math.max(columns.length * 92, 200)}px`;
  const box = make("div", { class: "wide", tabindex: 0, role: "region", "aria-label": "Parallel coordinates" }, inner);
  target.append(chooser(page), box);
  if (!page.count) return;
  let wide = 200;

  const x = (place) => EDGE.side + (columns.length > 1 ? (place * (wide - 2 * EDGE.side)) / (columns.length - 1) : 0);
  const y = (part) => TALL - EDGE.bottom - part * (TALL - EDGE.top - EDGE.bottom);
  const spots = (place) =>
    columns.map((column, at) => {
      const part = scales[at].at(valueOf(column, place));
      return part === null ? null : [x(at), y(part)];
    });

  function trace(pen, place) {
    pen.beginPath();
    let before = null;
    for (const spot of spots(place)) {
      if (spot && before) pen.lineTo(...spot);
      else if (spot) pen.moveTo(...spot);
      before = spot;
    }
    pen.stroke();
  }

  function paint(pen, width, height, colours) {
    wide = width;
    pen.clearRect(0, 0, width, height);
    pen.globalAlpha = page.shown.length > 200 ? 0.35 : 0.7;
    for (const place of [...page.shown].sort((one, other) => other - one)) {
      pen.strokeStyle = colourOf(page, place, colours);
      trace(pen, place);
    }
    pen.globalAlpha = 1;
    if (page.chosen !== null) {
      pen.strokeStyle = colours.accent;
      pen.lineWidth = 3;
      trace(pen, page.chosen);
    }
    pen.lineWidth = 1;
    columns.forEach((column, at) => {
      pen.strokeStyle = colours.faint;
      pen.beginPath();
      pen.moveTo(x(at), y(0));
      pen.lineTo(x(at), y(1));
      pen.stroke();
      pen.fillStyle = colours.ink;
      pen.textAlign = "center";
      pen.fillText(shortenedTo(pen, `${column.name}${scales[at].log ? " (log)" : ""}`, 88), x(at), 14);
      const last = at === columns.length - 1 && at > 0;
      pen.textAlign = last ? "right" : "left";
      for (const [part, text] of spaced(scales[at].ticks, y, 15)) {
        const label = shortenedTo(pen, text, 84);
        const [left, size] = [last ? x(at) - 5 : x(at) + 5, pen.measureText(label).width];
        pen.globalAlpha = 0.75;
        pen.fillStyle = colours.paper;
        pen.fillRect(last ? left - size - 2 : left - 2, y(part) - 7, size + 4, 14);
        pen.globalAlpha = 1;
        pen.fillStyle = colours.ink;
        pen.fillText(label, left, y(part) + 4);
      }
    });
  }

  function picked(event) {
    let [found, least] = [null, Infinity];
    for (const place of page.shown) {
      const places = spots(place);
      for (let at = 0; at + 1 < places.length || at === 0; at++) {
        const [from, to] = [places[at], places[at + 1] ?? places[at]];
        if (!from || !to || event.offsetX < from[0] - 8 || event.offsetX > to[0] + 8) continue;
        const part = to[0] > from[0] ? (event.offsetX - from[0]) / (to[0] - from[0]) : 0;
        const distance = Math.abs(from[1] + part * (to[1] - from[1]) - event.offsetY);
        if (distance < least) [found, least] = [place, distance];
      }
    }
    if (found !== null) page.choose(found);
  }

  const label = `Parallel coordinates of ${columns.map((column) => column.name).join(", ")}. Left and right choose a point.`;
  const { canvas, again } = makeCanvas(inner, label, TALL, paint);
  canvas.addEventListener("click", picked);
  moves(canvas, page);
  page.follows(again);
}

function moves(element, page) {
  element.onkeydown = (event) => {
    const move = { ArrowUp: -1, ArrowDown: 1, ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (move === undefined) return;
    event.preventDefault();
    page.move(move);
  };
}
