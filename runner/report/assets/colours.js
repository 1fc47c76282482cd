// Colours that the colour-blind can tell apart: Okabe and Ito's for lines, cividis and blue to orange for cells.

const LINES = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7f7f7f"];
const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3]];
const CIVIDIS = [
  "#00224e",
  "#123570",
  "#3b496c",
  "#575d6d",
  "#707173",
  "#8a8678",
  "#a59c74",
  "#c3b369",
  "#e1cc55",
  "#fee838",
];
const DIVERGING = [
  "#053061",
  "#2166ac",
  "#4393c3",
  "#92c5de",
  "#d1e5f0",
  "#f7f7f7",
  "#fdd9b5",
  "#f9ae6b",
  "#e6801f",
  "#b35806",
  "#6b3203",
];
const BROKEN = [214, 0, 120];

function rgb(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

function between(stops, part) {
  const place = Math.min(Math.max(part, 0), 1) * (stops.length - 1);
  const low = Math.min(Math.floor(place), stops.length - 2);
  const [from, to] = [rgb(stops[low]), rgb(stops[low + 1])];
  return from.map((value, channel) => Math.round(value + (to[channel] - value) * (place - low)));
}

function lineColour(place) {
  return LINES[place % LINES.length];
}

function lineDash(place) {
  return DASHES[Math.floor(place / LINES.length) % DASHES.length];
}

function theme() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(name).trim();
  return {
    ink: read("--ink"),
    faint: read("--faint"),
    line: read("--line"),
    accent: read("--accent"),
    panel: read("--panel"),
    paper: read("--paper"),
    link: read("--link"),
    dim: read("--dim"),
  };
}

const repainters = [];

function repaints(call) {
  repainters.push(call);
}

function watchTheme() {
  for (const query of ["(prefers-color-scheme: dark)", "print"]) {
    matchMedia(query).addEventListener("change", () => repainters.forEach((call) => call()));
  }
}
