"use strict";

// WAV files, for downloads: 16-bit stereo at 48 kHz, which every audio program opens.

const WAV_CHANNELS = 2;
const WAV_BYTES = 2; // of a sample

/** The header of a WAV file with so many frames. */
function wavHeader(frames) {
  const size = frames * WAV_CHANNELS * WAV_BYTES;
  const header = new DataView(new ArrayBuffer(44));
  const text = (at, letters) => [...letters].forEach((letter, i) => header.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  header.setUint32(4, 36 + size, true);
  text(8, "WAVEfmt ");
  header.setUint32(16, 16, true); // bytes of this chunk
  header.setUint16(20, 1, true); // integer PCM
  header.setUint16(22, WAV_CHANNELS, true);
  header.setUint32(24, OPUS_RATE, true);
  header.setUint32(28, OPUS_RATE * WAV_CHANNELS * WAV_BYTES, true);
  header.setUint16(32, WAV_CHANNELS * WAV_BYTES, true);
  header.setUint16(34, 8 * WAV_BYTES, true);
  text(36, "data");
  header.setUint32(40, size, true);
  return header.buffer;
}

/** `count` frames of an AudioBuffer from frame `first`, as interleaved samples. What the buffer lacks is silence. */
function pcm16(buffer, first, count) {
  const samples = new DataView(new ArrayBuffer(count * WAV_CHANNELS * WAV_BYTES));
  for (let channel = 0; channel < WAV_CHANNELS; channel += 1) {
    const from = buffer.getChannelData(Math.min(channel, buffer.numberOfChannels - 1));
    for (let i = 0; i < count; i += 1) {
      const value = Math.round(clamp(from[first + i] ?? 0, -1, 1) * 32767);
      samples.setInt16((i * WAV_CHANNELS + channel) * WAV_BYTES, value, true);
    }
  }
  return samples.buffer;
}
