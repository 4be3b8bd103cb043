"use strict";

// The page of a song: connects clicks and keys to the player, the waveforms and the timeline.

const STEP_S = 5; // for the arrow keys
const FINE_STEP_S = 1; // with Shift
const DRAG_PX = 3; // a click moves less than this

const sound = JSON.parse(document.getElementById("sound").textContent);
const page = document.getElementById("player");
const score = document.getElementById("score");
const ruler = document.getElementById("ruler");
const tracks = [...document.querySelectorAll(".track")].map((row, index) => ({
  name: sound.sources[index],
  canvas: row.querySelector("canvas"),
  solo: row.querySelector(".solo"),
  mute: row.querySelector(".mute"), // null for the mixture
  waveform: waveformOf(sound.waveforms[index]),
}));
const isMixture = (track) => track.name === "mixture";

const player = new Player(
  sound,
  (k) => document.getElementById(`chunk-${k}`)?.textContent.trim().split("\n"),
  refresh,
);

/**
 * The rows that are heard, a boolean for each: the soloed ones; without solo, the stems that are not muted; without
 * solo and mute, the mixture, because the sum of the stems is not exactly equal to it.
 */
function heardTracks() {
  if (tracks.some((track) => isOn(track.solo))) return tracks.map((track) => isOn(track.solo));
  const muted = tracks.some((track) => isOn(track.mute));
  if (!muted && tracks.some(isMixture)) return tracks.map(isMixture);
  return tracks.map((track) => !isMixture(track) && !isOn(track.mute));
}

function isOn(button) {
  return button?.getAttribute("aria-pressed") === "true";
}

function press(button, on = !isOn(button)) {
  button?.setAttribute("aria-pressed", String(on));
}

/** Solo a row or end its solo. The mixture contains the stems, so it is never soloed together with them. */
function solo(track) {
  press(track.solo);
  if (isOn(track.solo)) {
    for (const other of tracks) if (isMixture(other) !== isMixture(track)) press(other.solo, false);
  }
  remix();
}

function mute(track) {
  if (!track.mute) return;
  press(track.mute);
  remix();
}

function reset() {
  for (const track of tracks) {
    press(track.solo, false);
    press(track.mute, false);
  }
  remix();
}

function remix() {
  const heard = heardTracks();
  player.mix(heard);
  const names = tracks.filter((_, index) => heard[index]).map((track) => track.name);
  const heardNames = document.createElement("b");
  heardNames.textContent = names.length ? names.join(" + ") : "nothing";
  document.getElementById("heard").replaceChildren("You hear ", heardNames);
  refresh();
}

function toggle() {
  if (player.playing) player.pause();
  else player.play();
}

/** Show the current state of the player. */
function refresh() {
  const button = document.getElementById("play");
  page.classList.toggle("playing", player.playing);
  button.setAttribute("aria-label", player.playing ? "Pause" : "Play");
  if (player.error) {
    document.getElementById("heard").textContent = `This browser cannot decode the sound (${player.error.message}).`;
  }
  const { position } = player;
  document.getElementById("now").textContent = clock(position);
  ruler.setAttribute("aria-valuenow", position.toFixed(1));
  ruler.setAttribute("aria-valuetext", clock(position));
  document.getElementById("playhead").style.left = `${(100 * position) / sound.seconds}%`;
  const heard = heardTracks();
  const own = isOn(document.getElementById("fit"));
  tracks.forEach((track, index) => {
    const loudest = own ? track.waveform.peak.reduce((most, level) => Math.max(most, level), 0) : 1;
    const look = { played: position / sound.seconds, heard: heard[index], scale: 1 / (loudest || 1) };
    drawWaveform(track.canvas, track.waveform, look);
  });
}

function follow() {
  if (player.playing) refresh();
  requestAnimationFrame(follow);
}

function seekTo(event) {
  const box = ruler.getBoundingClientRect();
  player.seek(((event.clientX - box.left) / box.width) * sound.seconds);
}

for (const track of tracks) {
  track.solo.addEventListener("click", () => solo(track));
  track.mute?.addEventListener("click", () => mute(track));
}
document.getElementById("play").addEventListener("click", toggle);
document.getElementById("reset").addEventListener("click", reset);
document.getElementById("fit").addEventListener("click", (event) => {
  press(event.currentTarget);
  refresh();
});

// A press on any plot sets the position; after a drag, the release sets it again.
let pressedAt = null;
score.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || !event.target.closest(".plot")) return;
  pressedAt = event.clientX;
  seekTo(event);
});
window.addEventListener("pointerup", (event) => {
  if (pressedAt !== null && Math.abs(event.clientX - pressedAt) > DRAG_PX) seekTo(event);
  pressedAt = null;
});

const bars = openTimeline(score, document.getElementById("tip"), (seconds) => {
  player.seek(seconds);
  player.play();
});

const KEYS = {
  " ": toggle,
  ArrowLeft: (event) => player.seek(player.position - (event.shiftKey ? FINE_STEP_S : STEP_S)),
  ArrowRight: (event) => player.seek(player.position + (event.shiftKey ? FINE_STEP_S : STEP_S)),
  Home: () => player.seek(0),
  End: () => player.seek(sound.seconds),
  f: () => document.getElementById("fit").click(),
  t: () => bars?.focus(),
};

window.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const digit = /^(?:Digit|Numpad)(\d)$/.exec(event.code)?.[1]; // the key, not the character: Shift changes that
  if (digit === "0") reset();
  else if (digit && tracks[digit - 1]) (event.shiftKey ? mute : solo)(tracks[digit - 1]);
  else if (event.key === " " && event.target.closest?.("button:not(#play)")) return;
  else if (KEYS[event.key]) KEYS[event.key](event);
  else return;
  event.preventDefault();
});

window.addEventListener("resize", refresh);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", refresh);
remix();
follow();
