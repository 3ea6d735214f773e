// The graph: one of the views that were laid out beforehand, and marks on it for each step.

const HEADS = [[6.5, 2.6], [10, 4.6]]; // points: length and half the width of an arrowhead

// When things happen: the step that computes a node, the first at which some of its gradient has
// arrived, the one at which it is complete; for an edge, the first that carries something back.
const began = walk.nodes.map(() => Infinity);
const carried = new Map();
walk.steps.forEach((step, k) => {
  if (k < (walk.backward ?? Infinity) || step.n === undefined) return;
  began[step.n] = Math.min(began[step.n], k);
  const edge = `${step.v}:${step.p}`;
  if (step.v !== undefined && !carried.has(edge)) carried.set(edge, k);
});

const least = numbers => Math.min(...numbers);
const inBackward = k => walk.backward !== null && k >= walk.backward;

// The classes of a box that stands for the nodes `of`, by the step.
class Marks {
  constructor(of) {
    this.of = new Set(of);
    const nodes = of.map(i => walk.nodes[i]);
    const finals = nodes.filter(node => node.final !== null).map(node => node.final);
    this.computed = least(nodes.map(node => node.step));
    this.began = least(of.map(i => began[i]));
    this.final = finals.length ? Math.max(...finals) : Infinity;
  }

  at(k) {
    const step = walk.steps[k];
    const names = [k < this.computed ? "pale" : "done"];
    if (k >= this.final) names.push("full");
    else if (k >= this.began) names.push("part");
    if (this.of.has(step.n)) names.push(step.k === "error" ? "active failed" : "active");
    else if (this.of.has(step.v)) names.push("via");
    return names.join(" ");
  }
}

function set(item, names) {
  if (item.names === names) return;
  item.names = names;
  item.element.setAttribute("class", `${item.base} ${names}`);
}

// A path that ends in an arrowhead, at its end or, in the backward pass, at its start. The line is
// cut short by the head, so that a thick one does not stick out of it.
class Line {
  constructor(d) {
    const segments = [...d.matchAll(/([MLC])([^MLC]*)/g)].map(([, letter, numbers]) =>
      [letter, numbers.match(/-?[\d.]+/g).map(Number)]);
    const numbers = segments.flatMap(segment => segment[1]);
    const points = [];
    for (let n = 0; n < numbers.length; n += 2) points.push([numbers[n], numbers[n + 1]]);
    this.path = draw("path", { class: "line" });
    this.head = draw("path", { class: "head" });
    this.element = draw("g", {}, this.path, this.head);
    this.ways = [points, [...points].reverse()].map((way, turned) => {
      const end = way.at(-1);
      const before = way.findLast(point => apart(point, end) > 0.5) ?? way[0];
      const length = apart(before, end) || 1;
      const [x, y] = [(end[0] - before[0]) / length, (end[1] - before[1]) / length];
      return HEADS.map(([long, half]) => {
        const back = (by, s = 0) => [end[0] - x * by + s * y * half, end[1] - y * by - s * x * half];
        const cut = [...way.slice(0, -1), back(long - 1)];
        return { line: written(segments, turned ? cut.reverse() : cut),
          head: `M${end.join(" ")}L${back(long, 1).join(" ")}L${back(long, -1).join(" ")}z` };
      });
    });
    this.turn(false, false);
  }

  // An edge that is looked at has a larger head.
  turn(backward, active) {
    const now = `${backward} ${active}`;
    if (this.now === now) return;
    this.now = now;
    const way = this.ways[Number(backward)][Number(active)];
    this.path.setAttribute("d", way.line);
    this.head.setAttribute("d", way.head);
  }
}

const apart = (p, q) => Math.hypot(p[0] - q[0], p[1] - q[1]);

function written(segments, points) {
  let at = 0;
  return segments.map(([letter, numbers]) => {
    const from = at;
    at += numbers.length / 2;
    return letter + points.slice(from, at).map(point => point.join(" ")).join(" ");
  }).join("");
}

// One view: built when it is first shown, then only marked anew.
class View {
  constructor(data) {
    this.data = data;
    this.scale = 1;
    this.edges = data.edges.map(edge => this.edge(edge));
    this.nodes = data.nodes.map(node => this.node(node));
    const scopes = data.scopes.map(scope => this.scope(scope));
    this.labels = data.edges.filter(edge => edge.label).map(({ label: [text, x, y] }) =>
      draw("text", { class: "label", x, y }, text));
    this.element = draw("svg", { viewBox: `0 0 ${data.w} ${data.h}`, role: "group",
      "aria-label": "Graph of the program" }, ...scopes, ...this.edges.map(e => e.element),
    ...this.labels, ...this.nodes.map(n => n.element));
  }

  scope({ p, x, y, w, h, text }) {
    const title = draw("g", { class: "title", role: "button", tabindex: 0, "data-close": p,
      "aria-label": `Close ${text}`, "aria-expanded": "true" },
    draw("title", {}, `Close ${text}`), draw("rect", { x: x + 5, y: y + 3, height: 17, rx: 4,
      width: Math.min(w - 10, 22 + 6.2 * text.length) }),
    draw("path", { class: "fold", d: `M${x + 9.5} ${y + 10}h6l-3 4z` }),
    draw("text", { x: x + 19, y: y + 15 }, text));
    return draw("g", { class: "scope" }, draw("rect", { class: "area", x, y, width: w, height: h,
      rx: 8 }), title);
  }

  node(node) {
    const { x, y, w, h, i, p, of } = node;
    const isOp = node.kind === "op" || node.kind === "output" || node.kind === "scope";
    const rx = isOp ? 9 : 2;
    const title = i === null ? `Open ${walk.scopes[p].title}` : described(walk.nodes[i]);
    const group = draw("g", { role: "button", tabindex: 0, "aria-label": title,
      ...(i === null ? { "data-open": p, "aria-expanded": "false" } : { "data-node": i }) },
    draw("title", {}, title),
    draw("rect", { class: "ring", x: x - 3, y: y - 3, width: w + 6, height: h + 6,
      rx: rx + 3 }),
    draw("rect", { class: "box", x, y, width: w, height: h, rx }),
    ...(i === null ? [draw("path", { class: "fold", d: `M${x + 6} ${y + h / 2 - 3.5}v7l4.5-3.5z` })] : []),
    ...lines(node));
    return { ...node, element: group, base: `node ${node.kind}`, marks: new Marks(of) };
  }

  edge(edge) {
    const line = new Line(edge.d);
    const of = edge.of.map(([target, position]) => `${target}:${position}`);
    return { line, element: line.element, base: edge.label ? "edge broadcast" : "edge", of: new Set(of),
      targets: new Set(edge.of.map(([target]) => target)),
      computed: edge.of.length ? least(edge.of.map(([target]) => walk.nodes[target].step)) : 0,
      carried: least(of.map(key => carried.get(key) ?? Infinity)) };
  }

  // In the backward pass a label reads from below: from the shape that came to be to that which was.
  turn(backward) {
    if (backward || this.turned) {
      for (const label of this.labels) {
        label.textContent = label.textContent.split(" → ").reverse().join(" → ");
      }
    }
    this.turned = backward;
  }

  mark(k) {
    const step = walk.steps[k];
    const backward = inBackward(k);
    if (backward !== this.turned) this.turn(backward);
    for (const node of this.nodes) set(node, node.marks.at(k));
    for (const edge of this.edges) {
      const active = step.v === undefined ? step.k === "forward" && edge.targets.has(step.n)
        : edge.of.has(`${step.v}:${step.p}`);
      const done = k >= (backward ? edge.carried : edge.computed);
      set(edge, `${done ? "done" : "pale"}${active ? " active" : ""}`);
      edge.line.turn(backward, active);
    }
  }

  // The box in which a step happens.
  box(step) {
    return this.nodes.find(node => node.marks.of.has(step.n));
  }

  // What should be in sight: the node, and the other end of the edge.
  place(k) {
    const step = walk.steps[k];
    const near = this.nodes.filter(node => node.marks.of.has(step.n) || node.marks.of.has(step.v));
    const [first] = near.filter(node => node.marks.of.has(step.n));
    if (!first) return k ? null : { x: 0, y: 0, w: this.data.w, h: 1 };
    const other = near.find(node => node.marks.of.has(step.v)) ?? first;
    return { x: Math.min(first.x, other.x), y: Math.min(first.y, other.y),
      w: Math.max(first.x + first.w, other.x + other.w) - Math.min(first.x, other.x),
      h: Math.max(first.y + first.h, other.y + other.h) - Math.min(first.y, other.y) };
  }

  resize(scale) {
    this.scale = scale;
    this.element.setAttribute("width", this.data.w * scale);
    this.element.setAttribute("height", this.data.h * scale);
  }

  // Fonts differ: text that is wider than its box is squeezed into it.
  squeeze() {
    if (this.squeezed) return;
    this.squeezed = true;
    for (const { element, w } of this.nodes) {
      for (const text of element.querySelectorAll("text")) {
        if (text.getComputedTextLength() > w - 6) {
          text.setAttribute("textLength", w - 6);
          text.setAttribute("lengthAdjust", "spacingAndGlyphs");
        }
      }
    }
  }
}

function described(node) {
  const what = [node.name, node.label, times(node.shape), node.scope.join(" › ")];
  return what.filter(Boolean).join(", ");
}

// The text of a box: the name stands out, the shape below is small.
function lines({ x, y, w, h, i, text }) {
  const number = i === null ? null : /#\d+$/.exec(walk.nodes[i].name);
  if (number) text = [`${text[0]} ${number[0]}`, ...text.slice(1)]; // as it is called in formulas
  const heights = text.map((_, line) => line ? 11 : 13);
  let top = y + (h - heights.reduce((a, b) => a + b, 0)) / 2;
  return text.map((line, row) => {
    top += heights[row];
    const [, name, rest] = /^(.*?)( = .*)?$/s.exec(line);
    return draw("text", { x: x + w / 2, y: top - 3, class: row ? "small" : "main" },
      ...(row ? [line] : [draw("tspan", { class: "name" }, name), rest ?? ""]));
  });
}

// Where there are no views: the nodes as a list, of which only those around the current one exist.
class List {
  constructor() {
    this.element = make("div", { class: "list" });
    this.from = -1;
    this.scale = 1;
  }

  mark(k) {
    const step = walk.steps[k];
    if (step.n !== undefined) this.current = step.n;
    this.show(this.current ?? 0);
    for (const row of this.rows) set(row, row.marks.at(k));
  }

  show(middle) {
    const count = walk.nodes.length;
    if (this.rows && middle >= this.from + 20 && middle < this.from + 160) return;
    const from = Math.max(0, Math.min(middle - 90, count - 180));
    if (from === this.from) return;
    this.from = from;
    this.rows = walk.nodes.slice(from, from + 180).map(node => {
      const element = make("button", { type: "button", "data-node": node.i }, make("b", {}, node.name),
        make("span", {}, node.label),
        make("small", {}, times(node.shape)));
      return { element, base: `item ${node.kind}`, marks: new Marks([node.i]) };
    });
    const rest = count - from - this.rows.length;
    this.element.replaceChildren(
      ...(from ? [this.more(`… ${from} before`, from - 90)] : []),
      ...this.rows.map(row => row.element),
      ...(rest ? [this.more(`… ${rest} after`, from + 270)] : []));
  }

  more(text, middle) {
    const button = make("button", { type: "button", class: "item more" }, text);
    button.addEventListener("click", () => {
      this.show(Math.max(0, Math.min(middle, walk.nodes.length - 1)));
      for (const row of this.rows) set(row, row.marks.at(state.k));
    });
    return button;
  }

  box(step) {
    return step.n;
  }

  place(k) {
    const row = this.rows.find(r => r.marks.of.has(walk.steps[k].n))?.element;
    return row && { x: 0, y: row.offsetTop, w: 1, h: row.offsetHeight };
  }

  resize() {}
  squeeze() {}
}
