// Tests of the page's own scripts that need no browser. The folder of the scripts is the first argument.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import vm from "node:vm";

const [, , folder] = process.argv;
const names = ["data", "elements", "colours", "chart", "run/curves", "run/layout", "run/graph", "run/pictures", "sweep/points"];
const text = names.map((name) => readFileSync(join(folder, `${name}.js`), "utf8")).join("\n");
const exported =
  "({ bytesOf, revived, short, between, CIVIDIS, union, aligned, powers, room, smoothed, placeOf, readingOf, brokenRows, brief, signed, layers, placed, pictureColours, scaleOf })";
const context = vm.createContext({ atob, console });
const it = vm.runInContext(`"use strict";\n${text}\n${exported}`, context);
const plain = (value) => JSON.parse(JSON.stringify(Array.from(value, (item) => item ?? null)));

// data
const bytes = it.bytesOf(Buffer.from(new Float32Array([1, -2.5]).buffer).toString("base64"));
assert.deepEqual(plain(bytes), [...new Uint8Array(new Float32Array([1, -2.5]).buffer)]);
const found = it.revived({ a: [{ $array: "f4", at: 0, length: 2 }], b: null, c: "text", d: { e: 1 } }, bytes.buffer);
assert.deepEqual(plain(found.a[0]), [1, -2.5]);
assert.deepEqual([found.b, found.c, found.d.e], [null, "text", 1]);
it.revived(JSON.parse('{"__proto__": {"evil": 1}}'), bytes.buffer);
assert.equal({}.evil, undefined);

// numbers as text
const texts = [
  [0, "0"],
  [1.5, "1.5"],
  [-0.00001, "-1e-5"],
  [123456789, "1.235e+8"],
  [NaN, "NaN"],
  [Infinity, "Infinity"],
  [null, "–"],
  [undefined, "–"],
  [0.1 + 0.2, "0.3"],
];
for (const [value, expected] of texts) assert.equal(it.short(value), expected);

// rows of several curves on one axis
assert.deepEqual(plain(it.union([Uint32Array.of(1, 3, 5), Uint32Array.of(2, 3, 9)])), [1, 2, 3, 5, 9]);
const same = Uint32Array.of(4, 5);
assert.equal(it.union([same, same]), same);
assert.deepEqual(plain(it.aligned(Float64Array.of(1, 2, 3), Uint32Array.of(1, 3), [7, NaN])), [7, null, null]);
assert.equal(it.aligned(Float64Array.of(1, 2, 3), Uint32Array.of(1, 3), [7, NaN])[1], undefined);
assert.equal(it.aligned(Float64Array.of(1, 2, 3), Uint32Array.of(1, 3), [7, NaN])[2], null);

// marks of a logarithmic axis: few enough for any range, and room for the longest number
assert.deepEqual(plain(it.powers(1, 100)), [1, 2, 5, 10, 20, 50, 100]);
assert.deepEqual(plain(it.powers(0.001, 1)), [0.001, 0.01, 0.1, 1]);
for (const [low, high] of [[1e-300, 1e300], [1e-7, 1e53], [10, 1e9]]) {
  const marks = it.powers(low, high);
  assert.ok(marks.length > 2 && marks.length < 12 && marks[0] >= low && marks.at(-1) <= high);
}
assert.equal(it.room(null), 64);
assert.equal(it.room(["1", "-1.234e+27"]), 88);

// smoothing: the weighted mean of all values so far, and NaN passes by
const values = [2, NaN, 4, 8];
const weights = [0.125, 0.25, 0.5];
const mean = (2 * weights[0] + 4 * weights[1] + 8 * weights[2]) / (weights[0] + weights[1] + weights[2]);
assert.ok(Math.abs(it.smoothed(values, 0.5)[3] - mean) < 1e-12);
assert.ok(Number.isNaN(it.smoothed(values, 0.5)[1]));
assert.equal(it.smoothed(values, 0), values);

// the number of a curve in a row: none where it has none, never that of another row in silence
assert.deepEqual([0, 1, 2, 5].map((row) => it.placeOf(Uint32Array.of(1, 3), row)), [-1, 0, 0, 1]);
const curve = { rows: Uint32Array.of(1, 3), values: [14000, NaN], thinned: false };
assert.deepEqual([0, 1, 2, 3].map((row) => it.readingOf(curve, row, 0)), ["–", "14000", "– (row 1: 14000)", "NaN"]);
assert.equal(it.readingOf({ ...curve, thinned: true }, 2, 0), "14000 in row 1");
assert.equal(it.readingOf({ ...curve, values: [2, 4] }, 3, 0.5), `4, smoothed ${Number((10 / 3).toPrecision(6))}`);
assert.deepEqual(plain(it.brokenRows([curve, { rows: Uint32Array.of(2, 3), values: [Infinity, 1] }])), [2, 3]);

// values in the boxes of a graph: the range rather than the norm, and what the log has as `.grad` is no ∂
assert.equal(it.brief("norm 9.697, from 0 to 1, 4 zeros", 23), "0 to 1, 4 zeros");
assert.equal(it.brief("4 nan of 1,000 elements; the others are from 0 to 1", 23), "4 nan of 1,000");
assert.deepEqual(["[10]", ".grad [10]"].map(it.signed), ["∂ [10]", ".grad [10]"]);

// the layout of a graph: each node right of what it comes from, and no two in one place
const nodes = [[], [], [0, 1], [2], [0], [3, 4], []].map((from) => ({ from }));
const { boxes, width, height } = it.placed(nodes, { width: 10, height: 4, across: 3, down: 2 });
nodes.forEach((node, place) => node.from.forEach((source) => assert.ok(boxes[source].x + 10 <= boxes[place].x)));
assert.equal(new Set(boxes.map(({ x, y }) => `${x} ${y}`)).size, nodes.length);
for (const box of boxes) assert.ok(box.x >= 0 && box.y >= 0 && box.x + 10 <= width && box.y + 4 <= height);

// no edge runs behind a box: it begins and ends at its boxes, and between them passes no other
const skips = [[], [0], [1], [2, 0], [3, 1, 0], []].map((from) => ({ from }));
const drawn = it.placed(skips, { width: 10, height: 4, across: 3, down: 2, lane: 1 });
const edges = skips.flatMap((node, place) => node.from.map((source) => [source, place]));
drawn.ways.forEach((points, at) => {
  const [from, to] = edges[at].map((place) => drawn.boxes[place]);
  assert.deepEqual(plain(points[0]), [from.x + 10, from.y + 2]);
  assert.deepEqual(plain(points.at(-1)), [to.x, to.y + 2]);
  for (const [x, y] of points.slice(1, -1)) {
    for (const box of drawn.boxes) assert.ok(x < box.x || x > box.x + 10 || y <= box.y || y >= box.y + 4);
  }
});
assert.ok(drawn.ways.some((points) => points.length > 2));
const long = Array.from({ length: 120 }, (_, place) => ({ from: place ? [place - 1] : [] }));
assert.equal(it.layers(long).length, 120);

// colours: ends of the scale, zero in the middle of a signed one, lighter means more
assert.deepEqual(plain(it.between(it.CIVIDIS, 0)), [0, 34, 78]);
assert.deepEqual(plain(it.between(it.CIVIDIS, 7)), [254, 232, 56]);
assert.deepEqual(plain(it.pictureColours(-2, 2)[127]), [247, 247, 247]);
const lightness = it.CIVIDIS.map((_, place) => it.between(it.CIVIDIS, place / 9)).map(
  ([r, g, b]) => 0.2126 * r + 0.7152 * g + 0.0722 * b,
);
lightness.slice(1).forEach((value, place) => assert.ok(value > lightness[place]));

// a scale of values that lie evenly by their logarithms is logarithmic, and its marks are round
const scale = (...numbers) => it.scaleOf({ numbers }, numbers.map((_, place) => place));
for (const numbers of [[0.0003, 0.001, 0.003, 0.01], [1, 2, 4, 8, 16, 32], [1, 5, 1000]]) assert.ok(scale(...numbers).log);
for (const numbers of [[1, 2, 3, 4], [0, 1, 100], [-1, 10, 100], [1, 50, 60, 70], [5], []]) assert.ok(!scale(...numbers).log);
const ticks = scale(0.001, 0.01, 0.1).ticks.map(([part, mark]) => `${part.toFixed(6)} ${mark}`);
assert.deepEqual(plain(ticks), ["0.000000 0.001", "0.500000 0.01", "1.000000 0.1"]);
const marks = scale(0.0012, 0.003, 0.02, 0.09, 0.4, 1.3, 7).ticks.map(([, mark]) => mark);
assert.deepEqual([...marks], ["0.01", "0.1", "1"]);
