"use strict";

// Plays several sources in sync, on the clock of Web Audio. Every few seconds it decodes the next chunk of all sources,
// shortly before its time, and drops it after playback. So a song of hours needs no more memory than a short one.

const PREROLL = 10; // packets decoded before a chunk and dropped: a decoder needs some to settle (RFC 7845: 4)
const AHEAD_S = 6; // decode chunks that begin within this time; well over the 1 s timers of hidden tabs
const PUMP_MS = 400;
const LEAD_S = 0.06; // from the play command to the first sample: time to schedule the nodes of all sources
const FADE_S = 0.012; // on solo and mute: too short to hear, long enough to avoid a click

class Player {
  /**
   * sound: {sources: [name], seconds, chunk_s, delay (frames at 48 kHz before the song)};
   * chunkText(k): the base64 of each source in chunk k; onchange(): called when the player starts, stops or fails.
   */
  constructor(sound, chunkText, onchange) {
    this.sound = sound;
    this.chunkText = chunkText;
    this.onchange = onchange;
    this.chunks = Math.ceil(sound.seconds / sound.chunk_s);
    this.state = "paused"; // or "loading", "playing"
    this.error = null;
    this.context = null;
    this.output = null; // the sum of all sources
    this.gains = []; // a GainNode for each source
    this.heard = sound.sources.map(() => false);
    this.pausedAt = 0; // the position of the last pause or seek, in seconds
    this.anchor = 0; // the context's time at position 0 of the song
    this.attempt = 0; // raised by every start and stop; results of older attempts are dropped
    this.nodes = new Set();
    this.packets = new Map(); // chunk → the packets of each source
  }

  get playing() {
    return this.state !== "paused";
  }

  /** The position in the song, in seconds. */
  get position() {
    if (this.state !== "playing") return this.pausedAt;
    return clamp(this.context.currentTime - this.anchor, this.pausedAt, this.sound.seconds);
  }

  async play() {
    if (this.playing) return;
    if (this.pausedAt >= this.sound.seconds - 0.01) this.pausedAt = 0;
    this.error = null;
    this.state = "loading";
    this.onchange();
    this.open();
    // Not awaited: if the browser needs another user gesture, the promise waits for it.
    this.context.resume();
    await this.start();
  }

  pause() {
    this.pausedAt = this.position;
    this.silence();
    this.state = "paused";
    this.onchange();
  }

  async seek(seconds) {
    const playing = this.playing;
    this.silence();
    this.pausedAt = clamp(seconds, 0, this.sound.seconds);
    this.state = playing ? "loading" : "paused";
    this.onchange();
    if (playing) await this.start();
  }

  /** Choose the sources that are heard; `heard` has a boolean for each. */
  mix(heard) {
    this.heard = heard;
    if (!this.context) return;
    this.gains.forEach((gain, index) => {
      const now = this.context.currentTime;
      gain.gain.cancelScheduledValues(now);
      gain.gain.setTargetAtTime(heard[index] ? 1 : 0, now, FADE_S / 3);
    });
  }

  open() {
    if (this.context) return;
    this.context = new AudioContext({ sampleRate: OPUS_RATE, latencyHint: "playback" });
    this.output = new GainNode(this.context);
    this.output.connect(this.context.destination);
    this.gains = this.heard.map((heard) => {
      const gain = new GainNode(this.context, { gain: heard ? 1 : 0 });
      gain.connect(this.output);
      return gain;
    });
  }

  /** Begin at `pausedAt`; done when the first chunk is scheduled. `pump` schedules the others. */
  async start() {
    const attempt = ++this.attempt;
    const first = Math.min(Math.floor(this.pausedAt / this.sound.chunk_s), this.chunks - 1);
    try {
      const buffers = await this.decode(first);
      if (attempt !== this.attempt) return;
      const frame = Math.ceil((this.context.currentTime + LEAD_S) * OPUS_RATE);
      this.anchor = frame / OPUS_RATE - this.pausedAt;
      this.schedule(first, buffers, this.pausedAt);
      this.state = "playing";
      this.onchange();
      this.pump(attempt, first + 1).catch((error) => this.fail(attempt, error));
    } catch (error) {
      this.fail(attempt, error);
    }
  }

  fail(attempt, error) {
    if (attempt !== this.attempt) return;
    this.pause();
    this.error = error;
    this.onchange();
  }

  /** Keep some seconds scheduled until the song or this attempt ends. */
  async pump(attempt, next) {
    while (attempt === this.attempt) {
      if (next < this.chunks && next * this.sound.chunk_s < this.position + AHEAD_S) {
        const buffers = await this.decode(next);
        if (attempt !== this.attempt) return;
        if (this.anchor + next * this.sound.chunk_s < this.context.currentTime) {
          // Decoding is late, for example after the computer slept. A late chunk would overlap the next one: restart.
          await this.seek(this.position);
          return;
        }
        this.schedule(next, buffers, next * this.sound.chunk_s);
        next += 1;
      } else if (this.position >= this.sound.seconds) {
        this.pause();
        return;
      } else {
        await new Promise((resolve) => setTimeout(resolve, PUMP_MS));
      }
    }
  }

  /** Schedule chunk k of all sources from the position `from`, all at the same sample. */
  schedule(k, buffers, from) {
    const end = Math.min((k + 1) * this.sound.chunk_s, this.sound.seconds);
    if (end <= from) return;
    const before = Math.min(PREROLL, this.firstPacket(k)) * PACKET_FRAMES + this.sound.delay;
    const offset = before / OPUS_RATE + from - k * this.sound.chunk_s;
    buffers.forEach((buffer, index) => {
      const node = new AudioBufferSourceNode(this.context, { buffer });
      node.connect(this.gains[index]);
      node.onended = () => {
        node.disconnect();
        this.nodes.delete(node);
      };
      this.nodes.add(node);
      node.start(this.anchor + from, offset, end - from);
    });
  }

  silence() {
    this.attempt += 1;
    for (const node of this.nodes) {
      node.onended = null;
      node.stop();
      node.disconnect();
    }
    this.nodes.clear();
  }

  /** Decode chunk k of every source into an AudioBuffer, with the pre-roll before it and one packet after it. */
  decode(k) {
    const parts = [k - 1, k, k + 1].map((near) => this.packetsIn(near));
    for (const kept of this.packets.keys()) if (Math.abs(kept - k) > 1) this.packets.delete(kept);
    return Promise.all(
      this.sound.sources.map((_, source) => {
        const [before, own, after] = parts.map((chunk) => chunk[source] ?? []);
        const packets = [...before.slice(-PREROLL), ...own, ...after.slice(0, 1)];
        return this.context.decodeAudioData(webm(packets));
      }),
    );
  }

  packetsIn(k) {
    if (!this.packets.has(k)) this.packets.set(k, (this.chunkText(k) ?? []).map(packetsOf));
    return this.packets.get(k);
  }

  firstPacket(k) {
    return (k * this.sound.chunk_s * OPUS_RATE) / PACKET_FRAMES;
  }
}

function clamp(value, lowest, highest) {
  return Math.min(Math.max(value, lowest), highest);
}
