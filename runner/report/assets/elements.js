// Makes elements. Text becomes text nodes only, so that no text of a run is ever read as markup.

const SVG = "http://www.w3.org/2000/svg";

function filled(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (key === "on") for (const [event, call] of Object.entries(value)) element.addEventListener(event, call);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

function make(name, attributes, ...children) {
  return filled(document.createElement(name), attributes, children);
}

function draw(name, attributes, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

// Text with code between backticks, as nodes.
function coded(text) {
  return text.split(/`([^`]*)`/).map((part, place) => (place % 2 ? make("code", {}, part) : part));
}

let made = 0;

function named(label, control, attributes) {
  control.id = `control-${++made}`;
  return make("span", { class: "control", ...attributes }, make("label", { for: control.id }, label), control);
}

function toggle(label, checked, changed) {
  const box = make("input", { type: "checkbox", checked, on: { change: () => changed(box.checked) } });
  return make("label", { class: "toggle" }, box, label);
}

function button(label, pressed, attributes) {
  return make("button", { type: "button", ...attributes, on: { click: pressed } }, label);
}

function choice(label, options, changed) {
  const list = make("select", { on: { change: () => changed(Number(list.value)) } });
  options.forEach((option, place) => list.append(make("option", { value: place }, option)));
  return [named(label, list), list];
}

function short(value) {
  if (value === null || value === undefined) return "–";
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e6)) return Number(value.toPrecision(4)).toExponential();
  return String(Number(value.toPrecision(6)));
}

function tickText(value) {
  if (!Number.isFinite(value)) return short(value);
  const size = Math.abs(value);
  if (size === 0 || (size >= 1e-3 && size < 1e6)) return String(Number(value.toPrecision(3)));
  return value.toExponential(2).replace(/\.?0*e/, "e");
}
