// The points of a sweep: their columns, the order, the filter, and the chosen point, which all views share.

const TESTS = {
  "<": (value, limit) => value < limit,
  "<=": (value, limit) => value <= limit,
  ">": (value, limit) => value > limit,
  ">=": (value, limit) => value >= limit,
  "=": (value, limit) => value === limit,
  "==": (value, limit) => value === limit,
  "!=": (value, limit) => value !== limit,
  "~": (value, limit) => String(value).includes(String(limit)),
};

function valueOf(column, place) {
  if (column.texts) return column.texts[column.at[place]];
  if (column.known && !column.known[place]) return null;
  return column.numbers[place];
}

function textOf(column, place) {
  const value = valueOf(column, place);
  if (value === null) return "";
  return typeof value === "string" ? value : short(value);
}

function conditionsOf(text, columns) {
  const byLength = [...columns].sort((one, other) => other.name.length - one.name.length);
  const found = [];
  let rest = text.trim();
  while (rest) {
    const left = rest;
    const column = byLength.find((each) => left.startsWith(each.name) && /^\s*[<>=!~]/.test(left.slice(each.name.length)));
    if (!column) {
      const names = columns.map((each) => each.name).join(", ");
      return { fault: `write a column, a comparison and a value, such as rank <= 10; columns are ${names}` };
    }
    const part = left.slice(column.name.length).match(/^\s*(<=|>=|!=|==|=|<|>|~)\s*("[^"]*"|.*?)\s*(?:(?:,|\sand\s)\s*|$)/s);
    if (!part || part[2] === "") return { fault: `a value is missing after ${column.name}` };
    const [whole, comparison, written] = part;
    const plain = written.startsWith('"') ? written.slice(1, -1) : written;
    const number = Number(plain);
    const wants = column.texts || comparison === "~" ? plain : number;
    if (!column.texts && comparison !== "~" && (plain.trim() === "" || Number.isNaN(number))) {
      return { fault: `${column.name} is a number, and ${plain.trim() || "a blank"} is none` };
    }
    found.push((place) => {
      const value = valueOf(column, place);
      return value !== null && TESTS[comparison](value, wants);
    });
    rest = left.slice(column.name.length + whole.length).trim();
  }
  return { conditions: found };
}

function makePoints({ count, columns, sweep, minimize, objective }) {
  const listeners = [];
  const column = (name) => columns.find((each) => each.name === name);
  const page = {
    count,
    columns,
    sweep,
    minimize,
    axes: columns.filter((each) => each.kind === "axis"),
    objective: column(objective) ?? columns.find((each) => each.kind === "result" && each.numbers),
    order: Array.from({ length: count }, (_, place) => place),
    shown: Array.from({ length: count }, (_, place) => place),
    chosen: count ? 0 : null,
    column,
    number: (place) => valueOf(column("point"), place),
    follows: (call) => listeners.push(call),
    row: () => NaN,
    tell: () => listeners.forEach((call) => call()),
    choose(place) {
      page.chosen = place;
      page.tell();
    },
    move(by) {
      if (!page.shown.length) return;
      const at = page.shown.indexOf(page.chosen) + by;
      page.choose(page.shown[Math.min(Math.max(at, 0), page.shown.length - 1)]);
    },
    sort(by, down) {
      const found = column(by);
      const key = (place) => {
        const value = valueOf(found, place);
        return Number.isNaN(value) ? null : value;
      };
      const sign = down ? -1 : 1;
      page.order.sort((one, other) => {
        const [a, b] = [key(one), key(other)];
        if (a === b) return one - other;
        if (a === null || b === null) return a === null ? 1 : -1;
        return (a < b ? -1 : 1) * sign;
      });
      page.pick(page.tests);
    },
    tests: [],
    pick(tests) {
      page.tests = tests;
      page.shown = page.order.filter((place) => tests.every((test) => test(place)));
      page.tell();
    },
    filter(text) {
      const { conditions, fault } = conditionsOf(text, columns);
      if (!fault) page.pick(conditions);
      return fault;
    },
  };
  return page;
}

function said(page, place) {
  const values = page.axes.map((axis) => `${axis.name} ${textOf(axis, place)}`);
  const own = page.column("objective");
  const results = [page.objective, own === page.objective ? null : own].filter(Boolean);
  const texts = results.map((each) => `${each.name} ${textOf(each, place) || "not measured"}`);
  return `point ${page.number(place)}: ${[...values, ...texts].join(", ")}`;
}

function chooser(page) {
  const back = button("◀", () => page.move(-1), { "aria-label": "Point before" });
  const on = button("▶", () => page.move(1), { "aria-label": "Next point" });
  const text = make("output", { "aria-live": "polite" });
  const links = ["curves", "config"].filter((name) => document.getElementById(name));
  function update() {
    const at = page.shown.indexOf(page.chosen);
    text.textContent = page.chosen === null ? "no point" : said(page, page.chosen);
    back.setAttribute("aria-disabled", at <= 0); // a disabled button would lose the focus
    on.setAttribute("aria-disabled", at === page.shown.length - 1);
  }
  page.follows(update);
  update();
  const to = links.map((name) => make("a", { href: `#${name}` }, name === "curves" ? "its curve" : "its config"));
  return make("div", { class: "stepper" }, back, on, text, to);
}

function colourOf(page, place, colours) {
  return mixed(colours.link, colours.dim, page.count > 1 ? (place / (page.count - 1)) ** 0.3 : 0);
}

// Whether numbers in ascending order, all above 0, lie more evenly by their logarithms.
function isLogarithmic(numbers) {
  const [low, high] = [numbers[0], numbers[numbers.length - 1]];
  if (!(low > 0) || high < 10 * low) return false;
  const middle = (numbers[(numbers.length - 1) >> 1] + numbers[numbers.length >> 1]) / 2;
  return high >= 100 * low || middle - low < 0.25 * (high - low);
}

function scaleOf(column, places) {
  const values = places.map((place) => valueOf(column, place));
  const numbers = values.filter((value) => typeof value === "number" && Number.isFinite(value));
  if (column.texts) {
    const names = column.texts.filter((_, at) => places.some((place) => column.at[place] === at)).slice(0, 200);
    const most = Math.max(1, names.length);
    return { names, ticks: names.map((name, at) => [(at + 0.5) / most, name]), at: (value) => part(names.indexOf(value)) };
    function part(place) {
      return place < 0 ? null : (place + 0.5) / most;
    }
  }
  let [low, high] = [Infinity, -Infinity];
  for (const value of numbers) [low, high] = [Math.min(low, value), Math.max(high, value)];
  if (low > high) return { ticks: [], at: () => null };
  const different = [...new Set(numbers)].sort((one, other) => one - other);
  const log = isLogarithmic(different);
  const to = (value) => (log ? Math.log(value) : value);
  const wide = to(high) - to(low);
  const at = (value) => {
    if (typeof value !== "number" || !Number.isFinite(value)) return null;
    return wide ? (to(value) - to(low)) / wide : 0.5;
  };
  const between = (share) => (log ? low * (high / low) ** share : low + wide * share);
  const powered = log ? powers(low, high) : [];
  const tens = powered.filter((value) => Math.abs(Math.log10(value) - Math.round(Math.log10(value))) < 1e-9);
  const even = [tens, powered, [0, 0.25, 0.5, 0.75, 1].map(between)].find((marks) => marks.length > 2);
  const shown = different.length <= 6 ? different : even;
  return { log, different, ticks: shown.map((value) => [at(value), tickText(value)]), at };
}
