"use strict";

// The list of all songs: filters and sorts them in memory, and adds rows to the page only when the user scrolls to them.

const ROWS_AT_ONCE = 60;
const SHOWN_INSTRUMENTS = 5;

const stored = JSON.parse(document.getElementById("songs").textContent);
const songs = stored.rows.map((row) => Object.fromEntries(stored.columns.map((name, index) => [name, row[index]])));
for (const song of songs) {
  song.words = folded([song.title, song.artist, song.filename, song.song_id, song.owner].join(" "));
}

const search = document.getElementById("search");
const fields = { present: document.getElementById("instrument"), absent: document.getElementById("without") };
const owner = document.getElementById("owner");
const status = document.getElementById("status");
const body = document.getElementById("rows");
const chosen = new Map(); // name of an instrument → {family, kind}; its kind is a key of `fields`
let order = { column: "title", descending: false };
let matching = songs;
let rowsMade = 0;

/** Lower case, without accents. */
function folded(text) {
  return text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
}

function matches(song) {
  const words = folded(search.value).split(/\s+/).filter(Boolean);
  return (
    words.every((word) => song.words.includes(word)) &&
    (!owner.value || song.owner === owner.value) &&
    (!status.value || song.status === status.value) &&
    [...chosen].every(
      ([name, { kind }]) =>
        song.instruments.some((number) => stored.instruments[number][0] === name) === (kind === "present"),
    )
  );
}

/** Missing values come last, in both directions. */
function compare(a, b) {
  const [left, right] = [a[order.column], b[order.column]];
  const [noLeft, noRight] = [left === null || left === "", right === null || right === ""];
  if (noLeft || noRight) return noLeft - noRight;
  const ascending = typeof left === "number" ? left - right : left.localeCompare(right);
  return order.descending ? -ascending : ascending;
}

function show() {
  matching = songs.filter(matches).sort(compare);
  rowsMade = 0;
  body.replaceChildren();
  const all = matching.length === songs.length;
  const count = `${songs.length.toLocaleString("en")} song${songs.length === 1 ? "" : "s"}`;
  document.getElementById("count").textContent = all ? count : `${matching.length.toLocaleString("en")} of ${count}`;
  document.getElementById("nothing").hidden = matching.length > 0;
  makeRows();
  showChosen();
  saveFilters();
}

function makeRows() {
  const next = matching.slice(rowsMade, rowsMade + ROWS_AT_ONCE);
  body.append(...next.map(rowOf));
  rowsMade += next.length;
}

function rowOf(song) {
  const link = element("a", "", song.title);
  link.href = `${song.song_id}.html`;
  link.dir = "auto";
  const loudness = song.loudness_lufs === null ? "" : song.loudness_lufs.toFixed(1).replace("-", "−");
  const more = song.instruments.length - SHOWN_INSTRUMENTS;
  return element(
    "tr",
    "",
    element("td", "song", link, element("bdi", "faint", song.artist || (song.filename === song.title ? "" : song.filename))),
    element("td", "", element("bdi", "", song.owner)),
    element("td", "number", song.seconds ? clock(song.seconds) : ""),
    element("td", "number", loudness),
    element("td", "state", element("span", `status ${song.status}`, song.status), element("bdi", "reason", song.reason)),
    element(
      "td",
      "heard",
      ...song.instruments.slice(0, SHOWN_INSTRUMENTS).map(instrumentOf),
      element("span", "faint", more > 0 ? `+${more}` : ""),
    ),
  );
}

function instrumentOf(number) {
  const [name, family] = stored.instruments[number];
  return element("span", "found", element("span", `swatch ${cssOf(family)}`), element("bdi", "", name));
}

/** An element. Text in its content never becomes markup. */
function element(tag, className, ...content) {
  const node = document.createElement(tag);
  node.className = className;
  node.append(...content);
  return node;
}

function cssOf(family) {
  return family.replaceAll(" ", "-");
}

/** True if an instrument has this name. The last choice counts: no song both has an instrument and lacks it. */
function choose(name, kind) {
  const known = stored.instruments.find(([listed]) => folded(listed) === folded(name));
  if (known) chosen.set(known[0], { family: known[1], kind });
  return Boolean(known);
}

function showChosen() {
  const buttons = [...chosen].map(([name, { family, kind }]) => {
    const text = kind === "present" ? name : `without ${name}`;
    const button = element("button", "", element("span", `swatch ${cssOf(family)}`), text, " ✕");
    button.type = "button";
    button.setAttribute("aria-label", `Remove ${text}`);
    button.addEventListener("click", () => {
      chosen.delete(name);
      show();
    });
    return button;
  });
  document.getElementById("chosen").replaceChildren(...buttons);
}

/** Put the filters into the address, for bookmarks and for the browser's back button. */
function saveFilters() {
  const saved = new URLSearchParams();
  if (search.value) saved.set("q", search.value);
  for (const [name, { kind }] of chosen) saved.append(fields[kind].id, name);
  if (owner.value) saved.set("owner", owner.value);
  if (status.value) saved.set("status", status.value);
  history.replaceState(null, "", saved.size ? `#${saved}` : location.pathname);
}

function loadFilters() {
  const saved = new URLSearchParams(location.hash.slice(1));
  search.value = saved.get("q") ?? "";
  owner.value = saved.get("owner") ?? "";
  status.value = saved.get("status") ?? "";
  for (const [kind, field] of Object.entries(fields)) saved.getAll(field.id).forEach((name) => choose(name, kind));
}

function options(select, values) {
  for (const value of [...new Set(values)].filter(Boolean).sort()) select.append(new Option(value, value));
}

options(owner, songs.map((song) => song.owner));
options(status, songs.map((song) => song.status));
document
  .getElementById("instruments")
  .append(...[...new Set(stored.instruments.map(([name]) => name))].map((name) => new Option(name, name)));

for (const input of [search, owner, status]) input.addEventListener("input", show);
for (const [kind, field] of Object.entries(fields)) {
  field.addEventListener("input", () => {
    if (!choose(field.value, kind)) return;
    field.value = "";
    show();
  });
}
document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
document.getElementById("clear").addEventListener("click", () => {
  for (const input of [search, owner, status]) input.value = "";
  chosen.clear();
  show();
});
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const { column } = button.dataset;
    order = { column, descending: order.column === column && !order.descending };
    for (const heading of document.querySelectorAll("th")) heading.removeAttribute("aria-sort");
    button.closest("th").setAttribute("aria-sort", order.descending ? "descending" : "ascending");
    show();
  });
}
window.addEventListener("keydown", (event) => {
  if (event.key === "/" && !event.target.closest("input, select")) {
    event.preventDefault();
    search.focus();
  }
  if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
  if (event.target.closest("select") || event.target.list) return;
  const links = [...body.querySelectorAll("a")];
  const next = links.indexOf(document.activeElement) + (event.key === "ArrowDown" ? 1 : -1);
  event.preventDefault();
  if (next < 0) search.focus();
  else links[next]?.focus();
});
new IntersectionObserver(([edge]) => edge.isIntersecting && makeRows(), { rootMargin: "800px" }).observe(
  document.getElementById("end"),
);

loadFilters();
show();
