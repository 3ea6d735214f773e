// Where we are, and all ways to go elsewhere.

const state = { k: -1, view: null, zoom: 1, timer: 0, forward: 0 };
const PACE = 1400; // milliseconds a step
const last = walk.steps.length - 1;
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const views = walk.views.map(() => null);
const list = walk.views.length ? null : new List();

function go(k, smooth = true) {
  k = Math.max(0, Math.min(last, Math.round(k) || 0));
  if (k === state.k) return;
  const near = Math.abs(k - state.k) === 1;
  state.k = k;
  const backward = inBackward(k);
  if (!backward) state.forward = k;
  const step = walk.steps[k];
  const phase = step.k === "error" ? "error" : backward ? "backward" : "forward";
  document.body.dataset.phase = phase;
  $("phase").textContent = phase.toUpperCase();
  $("count").replaceChildren(make("span", {}, "step "), `${k} of ${last}`);
  $("slider").value = k;
  $("slider").setAttribute("aria-valuetext", `step ${k} of ${last}, ${phase}: ${step.f}`);
  $("track").style.setProperty("--at", last ? k / last : 0);
  for (const id of ["first", "back"]) disable($(id), k === 0);
  for (const id of ["forward", "last"]) disable($(id), k === last);
  $("jump").textContent = backward ? "To forward" : "To backward";
  explain(k);
  state.view.mark(k);
  for (const id of ["explanation", "reading"]) $(id).scrollTop = 0; // from here on sizes are asked
  revealSource();
  reveal(smooth && near);
  remember(k);
}

// A button that is out of use keeps the focus: the next press of a key should still be heard.
function disable(button, yes) {
  button.setAttribute("aria-disabled", String(yes));
}

// The picture --------------------------------------------------------------------------------------

function show(index, focus) {
  const view = list ?? (views[index] ??= new View(walk.views[index]));
  if (view === state.view) return;
  state.view = view;
  $("picture").replaceChildren(view.element);
  fit();
  view.squeeze();
  const other = list ? index : allOther();
  $("scopes").hidden = other === index;
  $("scopes").textContent = other === closest ? "Close all" : "Open all";
  if (state.k >= 0) {
    view.mark(state.k);
    reveal(false);
  }
  const at = focus === undefined ? null
    : view.element.querySelector(`[data-open="${focus}"], [data-close="${focus}"]`);
  at?.focus({ preventScroll: true });
}

function fit() {
  const view = state.view;
  if (!view || list) return;
  const room = $("picture").clientWidth - 32;
  view.resize(Math.max(0.95, Math.min(1.3, room / view.data.w)) * state.zoom);
}

function reveal(smooth) {
  const box = $("picture");
  const place = state.view.place(state.k);
  if (!place) return;
  const scale = state.view.scale;
  const offset = list ? { left: 0, top: 0 } : inside(state.view.element, box);
  const along = (start, length, from, size, whole) => {
    const [a, b] = [offset[start] + from * scale, offset[start] + (from + size) * scale];
    const margin = Math.min(48, length / 6);
    if (a - margin >= whole && b + margin <= whole + length) return whole;
    return size * scale > length - 2 * margin ? a - margin : (a + b - length) / 2;
  };
  const left = list ? 0 : along("left", box.clientWidth, place.x, place.w, box.scrollLeft);
  const top = along("top", box.clientHeight, place.y, place.h, box.scrollTop);
  if (left !== box.scrollLeft || top !== box.scrollTop) {
    box.scrollTo({ left, top, behavior: smooth && !calm.matches ? "smooth" : "instant" });
  }
}

function inside(element, box) {
  const [inner, outer] = [element.getBoundingClientRect(), box.getBoundingClientRect()];
  return { left: inner.left - outer.left + box.scrollLeft,
    top: inner.top - outer.top + box.scrollTop };
}

// Which scopes are seen closed in a view, with those inside them left out.
const closedIn = view => new Set(view.closed);

function outwards(place) {
  const path = [];
  for (let p = place; p !== null && p !== undefined; p = walk.scopes[p].parent) path.push(p);
  return path;
}

// The view nearest to what is wanted, among those in which `place` is open (or closed).
function toggle(place, close) {
  const now = closedIn(state.view.data);
  const wanted = new Set(now);
  if (close) wanted.add(place);
  else wanted.delete(place);
  let best = null;
  walk.views.forEach((view, index) => {
    const closed = closedIn(view);
    if (outwards(place).some(p => closed.has(p)) !== close) return;
    const distance = [...closed].filter(p => !wanted.has(p)).length * 1.5
      + [...wanted].filter(p => !closed.has(p)).length;
    if (!best || distance < best.distance) best = { index, distance };
  });
  if (best) show(best.index, place);
}

// The views with the fewest boxes and, if it is there, with all scopes open.
const sizes = walk.views.map(view => view.nodes.length);
const closest = sizes.indexOf(Math.min(...sizes));
const widest = walk.views.findIndex(view => !view.closed.length);

function allOther() {
  return widest < 0 || state.view === views[widest] ? closest : widest;
}

function toggleAll() {
  if (!list) show(allOther());
}

// Going -------------------------------------------------------------------------------------------

function stepBy(by) {
  pause();
  go(state.k + by);
}

// To the next step that happens in another box of the picture.
function stepOver(by) {
  pause();
  const box = k => state.view.box(walk.steps[k]) ?? walk.steps[k].k;
  const here = box(state.k);
  let k = state.k + by;
  while (k > 0 && k < last && box(k) === here) k += by;
  go(k);
}

function goToNode(i) {
  pause();
  const node = walk.nodes[i];
  go(inBackward(state.k) && node.final !== null ? node.final : node.step);
}

function jump() {
  pause();
  if (walk.backward !== null) go(inBackward(state.k) ? state.forward : walk.backward);
}

const PLAY = ["M5 3v14l12-7z", "M5 4h4v12H5zM11 4h4v12h-4z"];

function play() {
  if (state.timer) {
    pause();
    return;
  }
  if (state.k === last) go(0);
  state.timer = setInterval(() => {
    go(state.k + 1);
    if (state.k === last) pause();
  }, PACE);
  playing(true);
}

function pause() {
  const was = state.timer !== 0;
  clearInterval(state.timer);
  state.timer = 0;
  playing(false);
  return was;
}

function playing(yes) {
  $("icon").setAttribute("d", PLAY[Number(yes)]);
  $("play").lastElementChild.textContent = yes ? "Pause" : "Play";
}

// Deep links: #step=17. In a frame without an origin, neither may be allowed.
let writing = 0;

function remember(k) {
  clearTimeout(writing); // browsers object to many changes a second
  writing = setTimeout(() => {
    try {
      history.replaceState(null, "", `#step=${k}`);
    } catch { /* then there are no links */ }
  }, 120);
}

function linked() {
  try {
    const found = /^#step=(\d+)$/.exec(location.hash);
    return found ? Number(found[1]) : null;
  } catch {
    return null;
  }
}

// Keys and the mouse -------------------------------------------------------------------------------

const KEYS = {
  ArrowRight: () => stepBy(1), l: () => stepBy(1), j: () => stepBy(1),
  ArrowLeft: () => stepBy(-1), h: () => stepBy(-1), k: () => stepBy(-1),
  Home: () => { pause(); go(0); }, End: () => { pause(); go(last); },
  " ": play, b: jump, c: toggleAll, "/": openSearch, g: openSearch,
  "?": () => $("help").showModal(), Escape: leave,
};

function leave() {
  pause();
  forget();
  if (tableOf(document.activeElement)) document.activeElement.blur();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const { target, key } = event;
  const isButton = target.closest?.("button, summary, [role=button]");
  const handled = () => event.preventDefault();
  if (tableKey(event)) return handled();
  if (isButton && (key === " " || key === "Enter")) {
    if (isButton.matches("g")) { // an SVG button does not click by itself
      isButton.dispatchEvent(new MouseEvent("click", { bubbles: true }));
      handled();
    }
    return undefined;
  }
  if (event.shiftKey && (key === "ArrowRight" || key === "ArrowLeft")) {
    stepOver(key === "ArrowRight" ? 1 : -1);
    return handled();
  }
  if (!KEYS[key]) return undefined;
  KEYS[key]();
  return handled();
}

function onPicture(event) {
  const { node, open, close } = event.target.closest("[data-node], [data-open], [data-close]")?.dataset ?? {};
  if (node !== undefined) goToNode(Number(node));
  if (open !== undefined) toggle(Number(open), false);
  if (close !== undefined) toggle(Number(close), true);
}

function onLine(event) {
  const line = event.target.closest("[data-line]");
  const steps = line && linesUsed[source.file].get(Number(line.dataset.line));
  if (!steps || String(getSelection())) return;
  pause();
  const same = steps.filter(k => inBackward(k) === inBackward(state.k));
  const all = same.length ? same : steps;
  go(all.find(k => k > state.k) ?? all[0]);
}

function onHover(event) {
  const cell = event.target.closest("td:not(.more)");
  if (cell) cell.title = tableOf(cell).title(cell);
  if ($("rows").querySelector(".chosen")) return;
  dim("hover");
  const table = cell && tableOf(cell);
  if (table?.how) light(table, cell, "hover");
}

async function copy() {
  try {
    await navigator.clipboard.writeText($("tex").textContent);
  } catch {
    getSelection().selectAllChildren($("tex"));
    document.execCommand("copy");
  }
  $("copy").textContent = "Copied";
}

function listen() {
  const actions = { first: () => KEYS.Home(), back: () => stepBy(-1), play, forward: () => stepBy(1),
    last: () => KEYS.End(), jump, find: openSearch, ask: KEYS["?"], scopes: toggleAll, copy,
    smaller: () => zoom(1 / 1.2), larger: () => zoom(1.2), strange: () => { pause(); go(walk.failed ?? walk.strange); },
    skip: () => $("explanation").focus() };
  for (const [id, action] of Object.entries(actions)) $(id).addEventListener("click", action);
  document.addEventListener("keydown", onKey);
  document.addEventListener("mousedown", event => { // the space bar still plays after a click
    if (event.target.closest("nav button, #graph button, #graph [role=button]")) event.preventDefault();
  });
  $("picture").addEventListener("click", onPicture);
  $("code").addEventListener("click", onLine);
  $("rows").addEventListener("click", event => {
    const cell = event.target.closest("td:not(.more)");
    if (cell) ask(cell);
  });
  $("rows").addEventListener("mouseover", onHover);
  $("rows").addEventListener("mouseleave", () => $("rows").querySelector(".chosen") || dim("hover"));
  $("slider").addEventListener("input", () => { pause(); go(Number($("slider").value), false); });
  $("query").addEventListener("input", look);
  $("search").addEventListener("keydown", event => {
    const ways = { ArrowDown: () => choose(search.at + 1), ArrowUp: () => choose(search.at - 1),
      Enter: () => take(search.at) };
    if (!ways[event.key]) return;
    ways[event.key]();
    event.preventDefault();
  });
  $("found").addEventListener("click", event =>
    take(Number(event.target.closest("[data-hit]")?.dataset.hit)));
  for (const dialog of [$("search"), $("help")]) { // a click beside it closes it
    dialog.addEventListener("click", event => event.target === dialog && dialog.close());
  }
  addEventListener("hashchange", () => { if (linked() !== null) { pause(); go(linked()); } });
  addEventListener("resize", () => { fit(); reveal(false); });
}

function zoom(by) {
  state.zoom = Math.max(0.3, Math.min(3, state.zoom * by));
  fit();
  reveal(false);
}

function start() {
  $("title").textContent = $("title").title = walk.title;
  $("slider").max = last;
  const width = Math.max(200, ...walk.views.map(view => view.w));
  document.body.style.setProperty("--width", `${Math.round(width * 1.3 + 56)}px`);
  const seed = walk.backward ?? last;
  $("track").style.setProperty("--seed", last ? seed / last : 1);
  $("seed").hidden = walk.backward === null;
  $("jump").hidden = walk.backward === null;
  $("tools").hidden = Boolean(list);
  $("strange").hidden = walk.strange === null && walk.failed === null;
  $("strange").textContent = walk.failed === null
    ? `not finite from step ${walk.strange}` : `failed at step ${walk.failed}`;
  playing(false);
  listen();
  show(0);
  go(linked() ?? 0, false);
}

start();
