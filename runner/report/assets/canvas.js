// A canvas as wide as its place, which is painted again when its width or the colours change.

function makeCanvas(target, label, height, paint) {
  const canvas = make("canvas", { class: "plot", role: "img", "aria-label": label, tabindex: 0 });
  target.append(canvas);
  let width = 0;
  function again() {
    width = Math.max(200, target.clientWidth);
    canvas.width = Math.round(width * devicePixelRatio);
    canvas.height = Math.round(height * devicePixelRatio);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    const pen = canvas.getContext("2d");
    pen.scale(devicePixelRatio, devicePixelRatio);
    pen.font = "12px system-ui, sans-serif";
    paint(pen, width, height, theme());
  }
  new ResizeObserver(() => {
    if (Math.max(200, target.clientWidth) !== width) again();
  }).observe(target);
  repaints(again);
  return { canvas, again };
}

function shortenedTo(pen, text, width) {
  if (pen.measureText(text).width <= width) return text;
  let kept = text.slice(0, 200);
  while (kept && pen.measureText(`${kept}…`).width > width) kept = kept.slice(0, -1);
  return `${kept}…`;
}

function mixed(best, worst, part) {
  const channel = (at) => Math.round(rgb(best)[at] + (rgb(worst)[at] - rgb(best)[at]) * part);
  return `rgb(${channel(0)} ${channel(1)} ${channel(2)})`;
}

function spaced(ticks, position, gap) {
  const kept = [];
  for (const tick of [...ticks].sort((one, other) => one[0] - other[0])) {
    const last = kept[kept.length - 1];
    if (!last || Math.abs(position(tick[0]) - position(last[0])) >= gap) kept.push(tick);
  }
  return kept;
}
