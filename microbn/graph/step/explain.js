// What happens at a step, in words, tables and source.

const shownTables = []; // those on display
let asked = false; // whether a number has been selected before

function explain(k) {
  const step = walk.steps[k];
  $("where").replaceChildren(...where(step));
  $("formula").replaceChildren(...signed(step.f));
  $("sentence").textContent = step.t;
  shownTables.length = 0;
  $("rows").replaceChildren(...step.r.map(row => rowOf(row)));
  $("hint").hidden = asked || !shownTables.some(table => table.how);
  const remarks = [step.m, ...(k ? [] : walk.remarks)].filter(Boolean);
  $("remarks").replaceChildren(...remarks.map(text => make("p", { class: "remark" }, text)));
  $("latex").hidden = !step.x;
  $("tex").textContent = step.x;
  $("copy").textContent = "Copy";
  lightSource(step);
}

// Above the formula: where in the program and in the graph this is.
function where(step) {
  const node = walk.nodes[step.n];
  const via = walk.nodes[step.v];
  const parts = { start: ["what is given"], forward: ["computing ", bold(node)],
    seed: ["where the gradient starts, ", bold(node)], end: ["the gradients of the leaves"],
    edge: ["from ", bold(via), " back to ", bold(node)],
    sum: ["from ", bold(via), " back to ", bold(node), isCast(step) ? ", converted" : ", added up"],
    error: ["the program failed here"] }[step.k];
  const scope = node?.scope.length ? [make("span", { class: "scope" }, node.scope.join(" › "))] : [];
  const chip = step.e && step.v !== undefined && node
    ? [make("span", { class: "complete" }, "gradient complete")] : [];
  return [...parts, ...scope, ...chip];
}

// Whether a sum is over no axis: then only the dtype changes.
function isCast(step) {
  const shapes = step.r.flat().filter(item => item.c !== undefined)
    .map(item => times(walk.arrays[item.a].shape));
  return shapes[0] === shapes.at(-1);
}

const bold = node => node ? make("b", {}, node.name) : "";

// A formula, with its signs in a colour of their own. The small T looks like an S in some serif fonts.
function signed(text) {
  return text.split(/( (?:=|\+=|[+−×÷·→≈]) |ᵀ)/).map((part, n) =>
    n % 2 ? make("span", { class: part === "ᵀ" ? "upright" : "sign" }, part) : part);
}

// Tables with signs between them. A sign stays with the table that follows it.
function rowOf(row) {
  const line = make("div", { class: "row" });
  const why = make("div", { class: "why", role: "status" });
  let signs = [];
  row.forEach((item, n) => {
    if (typeof item === "string") {
      signs.push(make("span", { class: /^[^\p{L}\p{N}]*$/u.test(item) ? "sign" : "sign number" }, item));
      return;
    }
    const isResult = n === row.length - 1 && ["=", "→"].includes(row[n - 1]);
    const table = new Table(item, isResult);
    table.why = why;
    table.index = shownTables.push(table) - 1;
    table.element.dataset.table = table.index;
    line.append(make("div", { class: "term" }, ...signs, table.element));
    signs = [];
  });
  if (signs.length) line.append(...signs);
  return make("div", { class: "line" }, line, why);
}

// Why this number? --------------------------------------------------------------------------------

function tableOf(element) {
  const figure = element.closest?.("figure.table");
  return figure && shownTables[figure.dataset.table];
}

function ask(cell) {
  const table = tableOf(cell);
  if (!table?.how) return;
  asked = true;
  $("hint").hidden = true;
  const again = cell.classList.contains("chosen");
  forget();
  if (again) return;
  const why = new Why(table.shown, cell.flat);
  light(table, cell, "chosen");
  table.why.replaceChildren(make("p", {}, ...pieces(why.names)),
    make("p", {}, ...pieces(why.numbers)));
  focusCell(table, cell);
  table.why.scrollIntoView({ block: "nearest" });
}

// Point at an entry and at those that it was computed from.
function light(table, cell, name) {
  const why = new Why(table.shown, cell.flat);
  cell.classList.add(name);
  for (const [operand, flat] of why.used) {
    for (const other of shownTables) {
      if (other !== table && other.shown.a === why.how.o[operand].a) {
        other.cells.get(flat)?.classList.add("from", `o${operand % 4}`);
      }
    }
  }
}

function dim(name) {
  const lit = name === "chosen" ? ".chosen, .from" : ".hover, .from";
  for (const cell of $("rows").querySelectorAll(lit)) {
    cell.classList.remove(name, "from", "o0", "o1", "o2", "o3");
  }
}

function forget() {
  const had = $("rows").querySelector(".chosen");
  dim("chosen");
  for (const table of shownTables) table.why.replaceChildren();
  return Boolean(had);
}

function focusCell(table, cell) {
  for (const other of table.cells.values()) if (other.tabIndex === 0) other.tabIndex = -1;
  cell.tabIndex = 0;
  cell.focus({ preventScroll: false });
}

// Arrows and Enter in a table; says whether the key was one of its own.
function tableKey(event) {
  const table = tableOf(event.target);
  const cell = event.target.closest?.("td");
  if (!table?.how || !cell || event.shiftKey) return false;
  if (event.key === "Enter" || event.key === " ") {
    ask(cell);
    return true;
  }
  if (!event.key.startsWith("Arrow")) return false;
  const next = table.beside(cell.flat, event.key);
  if (next) focusCell(table, next);
  return true;
}

// Source ------------------------------------------------------------------------------------------

const WORDS = new Set(("and as assert async await break class continue def del elif else except " +
  "False finally for from global if import in is lambda None nonlocal not or pass raise return " +
  "True try while with yield").split(" "));
const TOKEN = /("""[^]*?(?:"""|$)|'''[^]*?(?:'''|$)|"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?|#[^\n]*|(?<![\p{L}\p{N}_])\d[\w.]*|[\p{L}_][\p{L}\p{N}_]*)/u;

const listings = new Map();
const linesUsed = walk.sources.map(() => new Map()); // line to the steps at it
walk.steps.forEach((step, k) => {
  if (!step.l) return;
  const [file, line] = step.l;
  linesUsed[file].set(line, [...(linesUsed[file].get(line) ?? []), k]);
});

// The lines of a file as elements; strings over several lines keep their colour.
function listing(file) {
  if (listings.has(file)) return listings.get(file);
  const { first, lines } = walk.sources[file];
  const rows = [[]];
  for (const part of lines.join("\n").split(TOKEN)) {
    const name = wordClass(part ?? "");
    (part ?? "").split("\n").forEach((text, n) => {
      if (n) rows.push([]);
      if (text) rows.at(-1).push(name ? make("span", { class: name }, text) : text);
    });
  }
  const element = make("div", { class: "listing" });
  rows.forEach((row, n) => {
    const used = linesUsed[file].has(first + n);
    element.append(make("div", { class: used ? "used" : "", "data-line": first + n },
      make("span", { class: "number" }, String(first + n)), make("code", {}, ...row)));
  });
  listings.set(file, element);
  return element;
}

function wordClass(text) {
  if (/^["']/.test(text)) return "string";
  if (text.startsWith("#")) return "comment";
  if (/^\d/.test(text)) return "literal";
  return WORDS.has(text) ? "word" : "";
}

const source = { file: -1, lit: null };

function showFile(file) {
  if (source.file === file) return;
  source.file = file;
  $("code").replaceChildren(listing(file));
  $("files").replaceChildren(...walk.sources.map(({ file: name }, n) => {
    const tab = make("button", { type: "button", "aria-pressed": String(n === file) }, name);
    tab.addEventListener("click", () => showFile(n));
    return tab;
  }));
}

function lightSource(step) {
  $("source").hidden = !walk.sources.length;
  source.lit?.classList.remove("lit");
  source.lit?.removeAttribute("aria-current");
  source.lit = null;
  if (!walk.sources.length) return;
  if (step.l || source.file < 0) showFile(step.l ? step.l[0] : 0);
  if (!step.l) return;
  const [file, line] = step.l;
  source.lit = listing(file).children[line - walk.sources[file].first] ?? null;
  source.lit?.classList.add("lit");
  source.lit?.setAttribute("aria-current", "step");
}

function revealSource() {
  const { lit } = source;
  if (!lit) return;
  const box = $("code");
  const [top, bottom] = [lit.offsetTop - 2 * lit.offsetHeight, lit.offsetTop + 3 * lit.offsetHeight];
  if (top < box.scrollTop || bottom > box.scrollTop + box.clientHeight) {
    const above = Math.floor(box.clientHeight / 2 / lit.offsetHeight); // whole lines
    box.scrollTop = lit.offsetTop - above * lit.offsetHeight;
  }
}
