"use strict";

// Puts the Opus packets of a page into a WebM file (RFC 9559) in memory, which decodeAudioData accepts.
// The header does not have the encoder's delay: only some browsers would cut it off, so the player does.

const OPUS_RATE = 48000; // Hz
const PACKET_FRAMES = 960; // 20 ms
const PACKET_MS = 20;

/** The packets of one source in one chunk. Before each packet is its length: two bytes, little-endian. */
function packetsOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
  const packets = [];
  for (let at = 0; at < bytes.length; ) {
    const length = bytes[at] | (bytes[at + 1] << 8);
    packets.push(bytes.subarray(at + 2, at + 2 + length));
    at += 2 + length;
  }
  return packets;
}

/** Stereo Opus packets as a WebM file (ArrayBuffer). */
function webm(packets) {
  const blocks = packets.map((packet, index) => {
    const time = index * PACKET_MS; // a signed 16-bit field: up to 32 s; a chunk has 5 s
    return element(0xa3, [Uint8Array.of(0x81, time >> 8, time & 0xff, 0x80), packet]);
  });
  const parts = flat([
    element(0x1a45dfa3, [ // EBML
      element(0x4286, [Uint8Array.of(1)]),
      element(0x42f7, [Uint8Array.of(1)]),
      element(0x42f2, [Uint8Array.of(4)]),
      element(0x42f3, [Uint8Array.of(8)]),
      element(0x4282, [ascii("webm")]),
      element(0x4287, [Uint8Array.of(4)]),
      element(0x4285, [Uint8Array.of(2)]),
    ]),
    element(0x18538067, [ // Segment
      element(0x1549a966, [ // Info: times in milliseconds
        element(0x2ad7b1, [Uint8Array.of(0x0f, 0x42, 0x40)]),
        element(0x4489, [float64(packets.length * PACKET_MS)]),
        element(0x4d80, [ascii("bandscope")]),
        element(0x5741, [ascii("bandscope")]),
      ]),
      element(0x1654ae6b, [ // Tracks
        element(0xae, [
          element(0xd7, [Uint8Array.of(1)]),
          element(0x73c5, [Uint8Array.of(1)]),
          element(0x83, [Uint8Array.of(2)]),
          element(0x86, [ascii("A_OPUS")]),
          element(0x63a2, [opusHead()]),
          element(0xe1, [element(0xb5, [float64(OPUS_RATE)]), element(0x9f, [Uint8Array.of(2)])]),
        ]),
      ]),
      element(0x1f43b675, [element(0xe7, [Uint8Array.of(0)]), ...blocks]), // Cluster
    ]),
  ]);
  const file = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    file.set(part, at);
    at += part.length;
  }
  return file.buffer;
}

/** The identification header of RFC 7845: version 1, two channels, nothing to skip, no gain. */
function opusHead() {
  const head = new Uint8Array(19);
  head.set(ascii("OpusHead"));
  head[8] = 1;
  head[9] = 2;
  new DataView(head.buffer).setUint32(12, OPUS_RATE, true);
  return head;
}

/** An EBML element as a list of parts; its size always takes four bytes. */
function element(id, content) {
  const parts = flat(content);
  const size = parts.reduce((sum, part) => sum + part.length, 0);
  const name = [24, 16, 8, 0].map((shift) => (id >>> shift) & 0xff);
  while (name[0] === 0) name.shift();
  const length = [0x10 | (size >>> 24), (size >>> 16) & 0xff, (size >>> 8) & 0xff, size & 0xff];
  return [Uint8Array.from([...name, ...length]), ...parts];
}

function flat(parts) {
  return parts.flat(Infinity);
}

function ascii(text) {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

function float64(value) {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setFloat64(0, value);
  return bytes;
}
