"use strict";

// Draws the waveform of a source: its peaks, and inside them its RMS. The played part has the stronger colour.

/** {peak, rms} in base64, one byte a column, 255 = the loudest peak of all sources → {peak, rms} as arrays in 0 … 1. */
function waveformOf(stored) {
  const levels = (base64) => Float32Array.from(atob(base64), (character) => character.charCodeAt(0) / 255);
  return { peak: levels(stored.peak), rms: levels(stored.rms) };
}

/** Draw a waveform over the width of a canvas; `played` is a share of the width, `scale` multiplies the height. */
function drawWaveform(canvas, waveform, { played, heard, scale }) {
  const ratio = window.devicePixelRatio || 1;
  const width = Math.round(canvas.clientWidth * ratio);
  const height = Math.round(canvas.clientHeight * ratio);
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  const paint = canvas.getContext("2d");
  paint.clearRect(0, 0, width, height);
  const colours = getComputedStyle(canvas);
  const edge = Math.round(played * width);
  const family = heard ? "--wave" : "--wave-off";
  for (const [from, to, kind] of [
    [0, edge, `${family}-played`],
    [edge, width, family],
  ]) {
    const shape = { from, to, width, height, scale };
    fillShape(paint, waveform.peak, shape, colours.getPropertyValue(`${kind}-peak`));
    fillShape(paint, waveform.rms, shape, colours.getPropertyValue(`${kind}-rms`));
  }
}

/** Draw levels mirrored at the middle of the canvas: one bar per pixel, as high as the highest column in it. */
function fillShape(paint, levels, { from, to, width, height, scale }, colour) {
  paint.fillStyle = colour;
  const middle = height / 2;
  const reach = middle - 3;
  for (let x = from; x < to; x += 1) {
    const first = Math.floor((x / width) * levels.length);
    const last = Math.max(first + 1, Math.ceil(((x + 1) / width) * levels.length));
    let level = 0;
    for (let column = first; column < last && column < levels.length; column += 1) {
      level = Math.max(level, levels[column]);
    }
    const half = Math.max(0.5, Math.min(1, level * scale) * reach);
    paint.fillRect(x, middle - half, 1, 2 * half);
  }
}
