"use strict";

// The list of all songs: filters and sorts them in memory, and makes only the rows that are scrolled to.

const ROWS_AT_ONCE = 60;
const SHOWN_INSTRUMENTS = 5;

const stored = JSON.parse(document.getElementById("songs").textContent);
const songs = stored.rows.map((row) => Object.fromEntries(stored.columns.map((name, index) => [name, row[index]])));
for (const song of songs) {
  song.words = folded([song.title, song.artist, song.filename, song.song_id, song.owner].join(" "));
}

const search = document.getElementById("search");
const instrument = document.getElementById("instrument");
const owner = document.getElementById("owner");
const status = document.getElementById("status");
const body = document.getElementById("rows");
const chosen = new Map(); // name of an instrument → its family
let order = { column: "title", descending: false };
let matching = songs;
let made = 0;

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
    [...chosen.keys()].every((name) => song.instruments.some((number) => stored.instruments[number][0] === name))
  );
}

/** What is missing comes last, in either direction. */
function compare(a, b) {
  const [left, right] = [a[order.column], b[order.column]];
  const [noLeft, noRight] = [left === null || left === "", right === null || right === ""];
  if (noLeft || noRight) return noLeft - noRight;
  const ascending = typeof left === "number" ? left - right : left.localeCompare(right);
  return order.descending ? -ascending : ascending;
}

function show() {
  matching = songs.filter(matches).sort(compare);
  made = 0;
  body.replaceChildren();
  const all = matching.length === songs.length;
  const count = `${songs.length.toLocaleString("en")} song${songs.length === 1 ? "" : "s"}`;
  document.getElementById("count").textContent = all ? count : `${matching.length.toLocaleString("en")} of ${count}`;
  document.getElementById("nothing").hidden = matching.length > 0;
  makeRows();
  showChosen();
  remember();
}

function makeRows() {
  const next = matching.slice(made, made + ROWS_AT_ONCE);
  body.append(...next.map(rowOf));
  made += next.length;
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
    element("td", "", element("span", `status ${song.status}`, song.status)),
    element(
      "td",
      "heard",
      ...song.instruments.slice(0, SHOWN_INSTRUMENTS).map(found),
      element("span", "faint", more > 0 ? `+${more}` : ""),
    ),
  );
}

function found(number) {
  const [name, family] = stored.instruments[number];
  return element("span", "found", element("span", `swatch ${cssOf(family)}`), element("bdi", "", name));
}

/** Texts become text, never markup. */
function element(tag, className, ...content) {
  const node = document.createElement(tag);
  node.className = className;
  node.append(...content);
  return node;
}

function cssOf(family) {
  return family.replaceAll(" ", "-");
}

function clock(seconds) {
  const whole = Math.floor(seconds);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (value) => String(value).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

function choose(name) {
  const known = stored.instruments.find(([listed]) => folded(listed) === folded(name));
  if (!known) return;
  chosen.set(...known);
  instrument.value = "";
  show();
}

function showChosen() {
  const buttons = [...chosen].map(([name, family]) => {
    const button = element("button", "", element("span", `swatch ${cssOf(family)}`), name, " ✕");
    button.type = "button";
    button.setAttribute("aria-label", `Remove ${name}`);
    button.addEventListener("click", () => {
      chosen.delete(name);
      show();
    });
    return button;
  });
  document.getElementById("chosen").replaceChildren(...buttons);
}

/** The filters stand in the address, so that a list can be kept as a bookmark, and is there on the way back. */
function remember() {
  const kept = new URLSearchParams();
  if (search.value) kept.set("q", search.value);
  for (const name of chosen.keys()) kept.append("instrument", name);
  if (owner.value) kept.set("owner", owner.value);
  if (status.value) kept.set("status", status.value);
  history.replaceState(null, "", kept.size ? `#${kept}` : location.pathname);
}

function recall() {
  const kept = new URLSearchParams(location.hash.slice(1));
  search.value = kept.get("q") ?? "";
  owner.value = kept.get("owner") ?? "";
  status.value = kept.get("status") ?? "";
  for (const name of kept.getAll("instrument")) {
    const known = stored.instruments.find(([listed]) => listed === name);
    if (known) chosen.set(...known);
  }
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
instrument.addEventListener("input", () => choose(instrument.value));
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
  if (event.target.closest("select") || event.target === instrument) return;
  const links = [...body.querySelectorAll("a")];
  const next = links.indexOf(document.activeElement) + (event.key === "ArrowDown" ? 1 : -1);
  event.preventDefault();
  if (next < 0) search.focus();
  else links[next]?.focus();
});
new IntersectionObserver(([edge]) => edge.isIntersecting && makeRows(), { rootMargin: "800px" }).observe(
  document.getElementById("end"),
);

recall();
show();
