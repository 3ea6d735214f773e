// Numbers, the tables that show them, and where each of them comes from.

const SVG = "http://www.w3.org/2000/svg";
const $ = id => document.getElementById(id);
const walk = JSON.parse($("walk").textContent);

// Everything that is shown is made here: text is always text, never markup.
function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

const product = numbers => numbers.reduce((a, b) => a * b, 1);
const times = shape => shape.length ? shape.join("×") : "scalar";

// A number as short as it can be written with so many significant digits.
function short(value, digits = 4) {
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "string") return value.replace("-", "−");
  const size = Math.abs(value);
  if (size === 0) return "0";
  let text;
  if (size < 10 ** (1 - digits) || size >= 99999.5) text = value.toExponential(digits - 1).replace("+", "");
  else text = size < 10 ** digits - 0.5 ? value.toPrecision(digits) : value.toFixed(0);
  return text.replace(/(\.\d*?)0+(?=e|$)/, "$1").replace(/\.(?=e|$)/, "").replaceAll("-", "−");
}

function whole(value) {
  return typeof value === "number" ? String(value).replaceAll("-", "−") : short(value);
}

// The index of an entry from its place in row-major order.
function unravel(shape, flat) {
  const index = [];
  for (const length of [...shape].reverse()) {
    index.unshift(flat % length);
    flat = Math.floor(flat / length);
  }
  return index;
}

const named = (name, index) => index.length ? `${name}[${index.join(", ")}]` : name;

// How an array lies in two dimensions: rows and columns, whole and stored.
function layout(array) {
  const [across, down] = [array.shape.at(-1) ?? 1, array.shape.at(-2) ?? 1];
  const stored = array.rows === undefined;
  const lead = array.shape.slice(0, -2);
  return { across, down, rows: stored ? down : array.rows, cols: stored ? across : array.cols,
    lead, count: product(lead), stored };
}

// The entry at a place in row-major order; undefined if it is not stored.
function entry(array, flat) {
  if (array.rows === undefined) return array.e[flat];
  const { across, down, rows, cols } = layout(array);
  const [row, col] = [Math.floor(flat / across), flat % across];
  return row < Math.min(rows, down) && col < cols ? array.e[row * cols + col] : undefined;
}

const MATRICES = 6; // of an array with more than two dimensions
const TERMS = 12; // of a sum
const DIGITS = 5; // of the numbers in it

// One table: a caption and, for each matrix of the array, a grid of entries on colours.
class Table {
  constructor(shown, isResult) {
    this.shown = shown;
    this.array = walk.arrays[shown.a];
    this.how = walk.how[shown.h];
    this.cells = new Map();
    const { lead, count, stored } = layout(this.array);
    const caption = make("figcaption", {}, make("b", {}, shown.c), " ",
      make("span", {}, times(this.array.shape)));
    this.element = make("figure", { class: isResult ? "table result" : "table" }, caption);
    this.element.style.setProperty("--caption", `${Math.min(24, caption.textContent.length)}ch`);
    const box = make("div", { class: "scroll" });
    const peak = this.peak();
    const several = stored ? Math.min(count, MATRICES) : Math.min(count, 1);
    for (let m = 0; m < several; m++) {
      if (lead.length) box.append(make("p", { class: "at" }, `[${unravel(lead, m).join(", ")}]`));
      box.append(this.grid(m, peak));
    }
    if (count > several) box.append(make("p", { class: "at" }, `… ${count - several} more`));
    if (!product(this.array.shape)) box.append(make("p", { class: "at" }, "empty"));
    this.element.append(box);
    if (this.array.digest) this.element.append(make("p", { class: "digest" }, this.array.digest));
    if (this.how) this.element.classList.add("asks");
    const isConstant = !this.array.shape.length
      && Number(shown.c.replaceAll("−", "-")) === this.array.e[0];
    if (isConstant) this.element.classList.add("constant"); // its caption says no more than it does
  }

  peak() {
    let peak = 0;
    for (const value of this.array.e) {
      if (typeof value === "number") peak = Math.max(peak, Math.abs(value));
    }
    return this.array.shape.length ? peak : 3 * peak; // a number is not large beside itself
  }

  grid(matrix, peak) {
    const { across, down, rows, cols } = layout(this.array);
    const name = `${this.shown.c}, ${times(this.array.shape)}`;
    const table = make("table", this.how ? { role: "grid", "aria-label": name }
      : { "aria-label": name });
    for (let row = 0; row < rows; row++) {
      const line = table.insertRow();
      for (let col = 0; col < cols; col++) {
        line.append(this.cell((matrix * down + row) * across + col, peak));
      }
      if (cols < across) line.append(make("td", { class: "more" }, "…"));
    }
    if (rows < down) {
      const line = table.insertRow();
      const width = Math.min(cols + 1, across);
      for (let col = 0; col < width; col++) line.append(make("td", { class: "more" }, "…"));
    }
    return table;
  }

  cell(flat, peak) {
    const value = entry(this.array, flat);
    const cell = document.createElement("td");
    cell.textContent = short(value);
    if (typeof value === "string") cell.className = "strange";
    else if (value) {
      cell.className = value < 0 ? "negative" : "positive";
      cell.style.setProperty("--share", `${Math.round(100 * Math.abs(value) / (peak || 1))}%`);
    }
    if (this.how) cell.tabIndex = this.cells.size ? -1 : 0; // one stop for Tab, arrows within
    cell.flat = flat;
    this.cells.set(flat, cell);
    return cell;
  }

  // The whole number, for who asks.
  title(cell) {
    const index = unravel(this.array.shape, cell.flat);
    return `${named(this.shown.c, index)} = ${whole(entry(this.array, cell.flat))}`;
  }

  // The cell that an arrow key leads to.
  beside(flat, key) {
    const across = this.array.shape.at(-1) ?? 1;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across };
    const sideways = key === "ArrowLeft" || key === "ArrowRight";
    const there = flat + steps[key];
    if (sideways && Math.floor(there / across) !== Math.floor(flat / across)) return undefined;
    return this.cells.get(there);
  }
}

// Why an entry is what it is: pieces of text for the names and for the numbers. A piece that
// stands for an operand knows which, so that it and the entry in its table get one colour.
class Why {
  constructor(shown, flat) {
    const array = walk.arrays[shown.a];
    const index = unravel(array.shape, flat);
    this.how = walk.how[shown.h];
    const lengths = this.how.o.find(operand => operand.l.length)?.l ?? [];
    this.count = product(lengths);
    this.used = []; // [operand, place in row-major order]
    const terms = [];
    for (let t = 0; t < this.count; t++) {
      const term = unravel(lengths, t);
      terms.push(this.how.o.map(o => o.at ? o.at[flat] : o.f + dot(index, o.s) + dot(term, o.d)));
      terms[t].forEach((place, k) => this.used.push([k, place]));
    }
    this.names = [`${named(shown.c, index)} = `, ...this.write(terms, this.name)];
    const result = short(entry(array, flat), DIGITS);
    const sum = this.write(terms, this.number);
    const plain = sum.map(piece => piece.text ?? piece).join("");
    this.numbers = plain === result ? [`= ${result}`] : ["= ", ...sum, ` = ${result}`];
  }

  name(operand, flat) {
    const index = unravel(walk.arrays[operand.a].shape, flat);
    const alone = !index.length || /^[\p{L}\p{N}\p{M}_ .′∂²³⁻]*(\([^()]*\))?$/u.test(operand.n);
    return named(alone ? operand.n : `(${operand.n})`, index);
  }

  // A negative number stands in parentheses, unless it comes first or stands alone.
  number(operand, flat, before, after) {
    const value = entry(walk.arrays[operand.a], flat);
    const text = value === undefined ? "…" : short(value, DIGITS);
    const alone = /(^|\(|, )$/.test(before) && /^($|\)|,| (?!\*\*))/.test(after);
    return text.startsWith("−") && !alone ? `(${text})` : text;
  }

  write(terms, say) {
    if (this.how.w === "pick") { // the one operand that the entry was taken from
      const k = terms[0].findIndex(place => place >= 0);
      return k < 0 ? ["0"] : [{ operand: k, text: say(this.how.o[k], terms[0][k], "", "") }];
    }
    return this.join(terms.slice(0, TERMS).map(flats => this.term(flats, say)));
  }

  // One term: the template over the operands' names or numbers.
  term(flats, say) {
    const parts = this.how.t.split(/\{(\d+)\}/);
    return parts.map((part, p) => p % 2 === 0 ? part : { operand: Number(part),
      text: say(this.how.o[part], flats[part], parts[p - 1], parts[p + 1]) }).filter(Boolean);
  }

  join(terms) {
    const wrap = this.how.w;
    const extreme = wrap === "max" || wrap === "min";
    const between = extreme ? ", " : " + ";
    const all = terms.flatMap((term, t) => {
      if (!t) return term;
      const loose = !extreme && (term[0].text ?? term[0]).startsWith("−");
      return loose ? [between, "(", ...term, ")"] : [between, ...term];
    });
    if (this.count > TERMS) all.push(`${between}… ${this.count - TERMS} more`);
    if (extreme) return [`${wrap}(`, ...all, ")"];
    return wrap === "mean" ? ["(", ...all, `) ÷ ${this.count}`] : all;
  }
}

function dot(a, b) {
  return b.reduce((sum, step, k) => sum + step * a[k], 0);
}

function pieces(list) {
  return list.map(piece => typeof piece === "string" ? piece
    : make("span", { class: `operand o${piece.operand % 4}` }, piece.text));
}
