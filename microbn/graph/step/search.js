// Finding a node by its name.

const search = { hits: [], at: 0 };

function openSearch() {
  pause();
  $("query").value = "";
  look();
  $("search").showModal();
}

// Who can type h₂? h2 will do.
const typed = text => text.toLowerCase().replace(/[₀-₉]/g, c => "₀₁₂₃₄₅₆₇₈₉".indexOf(c));

function look() {
  const wanted = typed($("query").value.trim());
  const rank = node => {
    const name = typed(node.name);
    if (name === wanted) return 0;
    if (name.startsWith(wanted)) return 1;
    if (name.includes(wanted)) return 2;
    return [node.label, ...node.scope].some(text => text.toLowerCase().includes(wanted)) ? 3 : 4;
  };
  search.hits = walk.nodes.map(node => [rank(node), node]).filter(([r]) => r < 4)
    .sort((a, b) => a[0] - b[0] || a[1].i - b[1].i).slice(0, 60).map(([, node]) => node);
  search.at = 0;
  $("found").replaceChildren(...search.hits.map((node, n) => {
    const row = make("div", { role: "option", id: `hit${n}`, class: node.kind, "data-hit": n },
      make("b", {}, node.name), make("span", {}, node.label),
      make("small", {}, [...node.scope, times(node.shape)].join(" › ")));
    return row;
  }));
  $("none").textContent = search.hits.length ? "" : "Nothing is called so.";
  choose(0);
}

function choose(n) {
  search.at = Math.max(0, Math.min(search.hits.length - 1, n));
  [...$("found").children].forEach((row, m) =>
    row.setAttribute("aria-selected", String(m === search.at)));
  const row = $(`hit${search.at}`);
  if (row) $("query").setAttribute("aria-activedescendant", row.id);
  else $("query").removeAttribute("aria-activedescendant");
  row?.scrollIntoView({ block: "nearest" });
}

function take(n) {
  const node = search.hits[n];
  if (!node) return;
  $("search").close();
  goToNode(node.i);
}
