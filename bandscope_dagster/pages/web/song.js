"use strict";

// The page of a song: connects clicks and keys to the player, the waveforms and the timeline.

const STEP_S = 5; // for the arrow keys
const FINE_STEP_S = 1; // with Shift
const DRAG_PX = 5; // a click moves less than this
const SHORTEST_LOOP_S = 0.25;
const SAVED_MS = 60_000; // after which the memory of a download is freed

const sound = JSON.parse(document.getElementById("sound").textContent);
const page = document.getElementById("player");
const score = document.getElementById("score");
const ruler = document.getElementById("ruler");
const tracks = [...document.querySelectorAll(".track")].map((row, index) => ({
  name: sound.sources[index],
  canvas: row.querySelector("canvas"),
  solo: row.querySelector(".solo"),
  mute: row.querySelector(".mute"), // null for the mixture
  volume: row.querySelector(".volume"),
  save: row.querySelector(".save"),
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
 * solo, mute and a stem with another volume, the mixture, because the sum of the stems is not exactly equal to it.
 */
function heardTracks() {
  if (tracks.some((track) => isOn(track.solo))) return tracks.map((track) => isOn(track.solo));
  const changed = tracks.some((track) => !isMixture(track) && (isOn(track.mute) || volumeOf(track) !== 1));
  if (!changed && tracks.some(isMixture)) return tracks.map(isMixture);
  return tracks.map((track) => !isMixture(track) && !isOn(track.mute));
}

/** A square law: half way on the slider sounds about half as loud. */
function volumeOf(track) {
  return Number(track.volume.value) ** 2;
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
    track.volume.value = 1;
  }
  player.repeat(null);
  remix();
}

function remix() {
  const heard = heardTracks();
  player.mix(tracks.map((track, index) => (heard[index] ? volumeOf(track) : 0)));
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
  showLoop(player.loop);
  const heard = heardTracks();
  const own = isOn(document.getElementById("fit"));
  tracks.forEach((track, index) => {
    const loudest = own ? track.waveform.peak.reduce((most, level) => Math.max(most, level), 0) : 1;
    const look = {
      played: position / sound.seconds,
      heard: heard[index],
      scale: Math.sqrt(volumeOf(track)) / (loudest || 1),
    };
    drawWaveform(track.canvas, track.waveform, look);
  });
}

function follow() {
  if (player.playing && pressedAt === null) refresh();
  requestAnimationFrame(follow);
}

/** The time under a pointer, in seconds. */
function timeAt(clientX) {
  const box = ruler.getBoundingClientRect();
  return clamp(((clientX - box.left) / box.width) * sound.seconds, 0, sound.seconds);
}

function showLoop(loop) {
  const band = document.getElementById("band");
  const button = document.getElementById("loop");
  band.hidden = button.hidden = !loop;
  if (!loop) return;
  band.style.left = `${(100 * loop.from) / sound.seconds}%`;
  band.style.width = `${(100 * (loop.to - loop.from)) / sound.seconds}%`;
  button.textContent = `Loop ${clock(loop.from)}–${clock(loop.to)} ✕`;
}

/** Save a source as a WAV file. */
async function save(track, index) {
  track.save.disabled = true;
  try {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await player.wav(index));
    link.download = `${document.querySelector("h1").textContent} (${track.name}).wav`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), SAVED_MS);
  } catch (error) {
    player.error = error;
    refresh();
  } finally {
    track.save.disabled = false;
  }
}

tracks.forEach((track, index) => {
  track.solo.addEventListener("click", () => solo(track));
  track.mute?.addEventListener("click", () => mute(track));
  track.volume.addEventListener("input", remix);
  track.save.addEventListener("click", () => save(track, index));
});
document.getElementById("loop").addEventListener("click", () => player.repeat(null));
document.getElementById("play").addEventListener("click", toggle);
document.getElementById("reset").addEventListener("click", reset);
document.getElementById("fit").addEventListener("click", (event) => {
  press(event.currentTarget);
  refresh();
});

// A click on any plot sets the position; a drag repeats the part that it covers.
let pressedAt = null;
score.addEventListener("pointerdown", (event) => {
  if (event.button === 0 && event.target.closest(".plot")) pressedAt = event.clientX;
});
window.addEventListener("pointermove", (event) => {
  if (pressedAt !== null) showLoop(dragged(event) ?? player.loop);
});
window.addEventListener("pointercancel", () => {
  pressedAt = null; // a touch became a scroll
  refresh();
});
window.addEventListener("pointerup", (event) => {
  if (pressedAt === null) return;
  const loop = dragged(event);
  if (loop) player.repeat(loop);
  else player.seek(timeAt(event.clientX));
  pressedAt = null;
});

/** The part of the song that a drag covers; null while it is too short. */
function dragged(event) {
  if (Math.abs(event.clientX - pressedAt) <= DRAG_PX) return null;
  const [from, to] = [timeAt(pressedAt), timeAt(event.clientX)].sort((a, b) => a - b);
  return to - from >= SHORTEST_LOOP_S ? { from, to } : null;
}

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
  l: () => player.repeat(null),
  f: () => document.getElementById("fit").click(),
  t: () => bars?.focus(),
};

window.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const digit = /^(?:Digit|Numpad)(\d)$/.exec(event.code)?.[1]; // the key, not the character: Shift changes that
  if (digit === "0") reset();
  else if (digit && tracks[digit - 1]) (event.shiftKey ? mute : solo)(tracks[digit - 1]);
  else if (event.key === " " && event.target.closest?.("button:not(#play)")) return;
  else if (event.key.startsWith("Arrow") && event.target.closest?.(".volume")) return;
  else if (KEYS[event.key]) KEYS[event.key](event);
  else return;
  event.preventDefault();
});

window.addEventListener("resize", refresh);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", refresh);
remix();
follow();
