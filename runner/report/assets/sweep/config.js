// The config of the chosen point: its values beside the lines that they change, and the command that shows it as a run.

function quoted(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

function pointconfigView(target, { lines, prefix }, page) {
  const commands = make("pre", { tabindex: 0, role: "region", "aria-label": "Commands" });
  const marks = new Map();
  for (const { name, line } of lines) {
    const item = document.getElementById(`${prefix}-${line}`);
    if (!item || !page.column(name)) continue;
    const mark = make("output", { class: "now" });
    item.classList.add("set");
    item.append(mark);
    marks.set(name, mark);
  }
  function exactly(name) {
    const value = valueOf(page.column(name), page.chosen);
    return value === null ? null : String(value);
  }
  function update() {
    if (page.chosen === null) return;
    marks.forEach((mark, name) => {
      const value = exactly(name);
      mark.textContent = value === null ? "" : `  ${name}: ${value}`;
    });
    const named = quoted(`${page.sweep}#${page.number(page.chosen)}`);
    const values = page.axes.map(({ name }) => [name, exactly(name)]).filter(([, value]) => value !== null);
    const overrides = values.map(([name, value]) => quoted(`${name}=${value}`)).join(" ");
    commands.textContent = `steprun report ${named}\nsteprun show ${named}\n# its values: ${overrides}`;
  }
  target.append(chooser(page), commands);
  page.follows(update);
  update();
}
