"use strict";

// The bars of the timeline: a tooltip on hover and focus, and arrow keys to move between the bars.

/** score: the element with all rows; tip: the tooltip; seek(seconds): plays from there. Undefined without bars. */
function openTimeline(score, tip, seek) {
  const rows = [...score.querySelectorAll(".instrument")]
    .map((row) => [...row.querySelectorAll("rect")])
    .filter((bars) => bars.length > 0);
  if (rows.length === 0) return;
  let reachable = rows[0][0]; // by Tab: only one bar, because there may be hundreds
  reachable.tabIndex = 0;

  const hide = () => {
    tip.hidden = true;
  };
  const show = (bar) => {
    const [name, ...rest] = bar.getAttribute("aria-label").split(", ");
    const heading = document.createElement("b");
    heading.textContent = name;
    tip.replaceChildren(heading, document.createTextNode(rest.join(" · ")));
    tip.hidden = false;
    const box = bar.getBoundingClientRect();
    const left = Math.min(box.left, window.innerWidth - tip.offsetWidth - 12);
    const below = box.bottom + 8;
    const top = below + tip.offsetHeight > window.innerHeight ? box.top - tip.offsetHeight - 8 : below;
    tip.style.left = `${Math.max(12, left)}px`;
    tip.style.top = `${top}px`;
  };
  const reach = (bar) => {
    reachable.tabIndex = -1;
    reachable = bar;
    bar.tabIndex = 0;
    bar.focus();
  };

  const isBar = (node) => node.matches?.(".bars rect");
  score.addEventListener("pointerover", (event) => isBar(event.target) && show(event.target));
  score.addEventListener("pointerout", hide);
  score.addEventListener("focusin", (event) => isBar(event.target) && show(event.target));
  score.addEventListener("focusout", hide);
  window.addEventListener("scroll", hide, { passive: true });
  score.addEventListener("keydown", (event) => {
    if (!isBar(event.target)) return;
    if (event.key === "Enter") seek(Number(event.target.dataset.start));
    else if (event.key === "Escape") hide();
    else {
      const next = neighbour(rows, event.target, event.key);
      if (next === undefined) return;
      if (next) reach(next);
    }
    event.preventDefault();
    event.stopPropagation();
  });
  return { focus: () => reachable.focus() };
}

/** The bar that an arrow key leads to; null if there is none, undefined for other keys. */
function neighbour(rows, bar, key) {
  const row = rows.findIndex((bars) => bars.includes(bar));
  const index = rows[row].indexOf(bar);
  if (key === "ArrowLeft") return rows[row][index - 1] ?? null;
  if (key === "ArrowRight") return rows[row][index + 1] ?? null;
  const other = { ArrowUp: rows[row - 1], ArrowDown: rows[row + 1] }[key];
  if (other === undefined) return key.startsWith("ArrowUp") || key === "ArrowDown" ? null : undefined;
  const start = Number(bar.dataset.start);
  const distance = (candidate) => Math.abs(Number(candidate.dataset.start) - start);
  return other.reduce((best, candidate) => (distance(candidate) < distance(best) ? candidate : best));
}
