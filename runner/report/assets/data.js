// Reads the data of the page: JSON, and the arrays that it names.

const ARRAYS = { u1: Uint8Array, i4: Int32Array, u4: Uint32Array, f4: Float32Array, f8: Float64Array };

function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let place = 0; place < text.length; place++) bytes[place] = text.charCodeAt(place);
  return bytes;
}

function revived(value, buffer) {
  if (Array.isArray(value)) return value.map((item) => revived(item, buffer));
  if (value === null || typeof value !== "object") return value;
  if (typeof value.$array === "string") return new ARRAYS[value.$array](buffer, value.at, value.length);
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, revived(item, buffer)]));
}

function readData(root) {
  const buffer = bytesOf(root.getElementById("arrays").textContent).buffer;
  return revived(JSON.parse(root.getElementById("data").textContent), buffer);
}
