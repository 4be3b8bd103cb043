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
    this.levels = sound.sources.map(() => 0); // the gain of each source; 0 is silent
    this.loop = null; // or {from, to} in seconds: playback goes from `to` back to `from`, without a gap
    this.turns = []; // scheduled ends of the loop: {time} of the context, and the {anchor} from then on
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
    while (this.turns.length && this.context.currentTime >= this.turns[0].time) {
      this.anchor = this.turns.shift().anchor;
      this.pausedAt = this.loop.from;
    }
    return clamp(this.context.currentTime - this.anchor, this.pausedAt, this.end);
  }

  /** The position where playback stops or turns, in seconds. */
  get end() {
    return this.loop ? this.loop.to : this.sound.seconds;
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

  /** Go to a position; outside of the loop, this ends the loop. */
  async seek(seconds) {
    const playing = this.playing;
    this.silence();
    this.pausedAt = clamp(seconds, 0, this.sound.seconds);
    if (this.loop && (this.pausedAt < this.loop.from || this.pausedAt >= this.loop.to)) this.loop = null;
    this.state = playing ? "loading" : "paused";
    this.onchange();
    if (playing) await this.start();
  }

  /** Repeat the part between two positions, from its start; null ends the repetition, and playback goes on. */
  repeat(loop) {
    const { position } = this;
    this.loop = loop;
    return this.seek(loop ? loop.from : position);
  }

  /** Set the gain of each source; true is 1, and 0 or false is silent. */
  mix(levels) {
    this.levels = levels;
    if (!this.context) return;
    this.gains.forEach((gain, index) => {
      const now = this.context.currentTime;
      gain.gain.cancelScheduledValues(now);
      gain.gain.setTargetAtTime(Number(levels[index]), now, FADE_S / 3);
    });
  }

  open() {
    if (this.context) return;
    this.context = new AudioContext({ sampleRate: OPUS_RATE, latencyHint: "playback" });
    this.output = new GainNode(this.context);
    this.output.connect(this.context.destination);
    this.gains = this.levels.map((level) => {
      const gain = new GainNode(this.context, { gain: Number(level) });
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
      const until = this.schedule(first, buffers, this.pausedAt, this.anchor);
      this.state = "playing";
      this.onchange();
      this.pump(attempt, until).catch((error) => this.fail(attempt, error));
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

  /** Keep some seconds scheduled until the song or this attempt ends. All before the position `until` is scheduled. */
  async pump(attempt, until) {
    let { anchor } = this; // of what is scheduled next
    while (attempt === this.attempt) {
      const ahead = anchor + until < this.context.currentTime + AHEAD_S;
      if (ahead && this.loop && until >= this.loop.to - 1e-6) {
        const time = anchor + this.loop.to;
        anchor = time - this.loop.from;
        until = this.loop.from;
        this.turns.push({ time, anchor });
      } else if (ahead && until < this.end - 1e-6) {
        const next = Math.floor(until / this.sound.chunk_s + 1e-6);
        const buffers = await this.decode(next);
        if (attempt !== this.attempt) return;
        if (anchor + until < this.context.currentTime) {
          // Decoding is late, for example after the computer slept. A late chunk would overlap the next one: restart.
          await this.seek(this.position);
          return;
        }
        until = this.schedule(next, buffers, until, anchor);
      } else if (this.position >= this.end) {
        this.pause();
        return;
      } else {
        await new Promise((resolve) => setTimeout(resolve, PUMP_MS));
      }
    }
  }

  /** Schedule chunk k of all sources from the position `from`, all at the same sample; returns the position of its end. */
  schedule(k, buffers, from, anchor) {
    const end = Math.min((k + 1) * this.sound.chunk_s, this.end);
    if (end <= from) return from;
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
      node.start(anchor + from, offset, end - from);
    });
    return end;
  }

  silence() {
    this.attempt += 1;
    this.turns = [];
    for (const node of this.nodes) {
      node.onended = null;
      node.stop();
      node.disconnect();
    }
    this.nodes.clear();
  }

  /** Decode chunk k of every source into an AudioBuffer, with the pre-roll before it and one packet after it. */
  decode(k) {
    return Promise.all(this.sound.sources.map((_, source) => this.decodeOne(k, source, this.context)));
  }

  decodeOne(k, source, context) {
    for (const kept of this.packets.keys()) if (Math.abs(kept - k) > 1) this.packets.delete(kept);
    const [before, own, after] = [k - 1, k, k + 1].map((near) => this.packetsIn(near)[source] ?? []);
    return context.decodeAudioData(webm([...before.slice(-PREROLL), ...own, ...after.slice(0, 1)]));
  }

  /** A source from start to end as a WAV file (Blob), chunk by chunk. */
  async wav(source) {
    const context = new OfflineAudioContext(2, 1, OPUS_RATE); // needs no click, and plays nothing
    const frames = Math.round(this.sound.seconds * OPUS_RATE);
    const parts = [wavHeader(frames)];
    for (let k = 0; k < this.chunks; k += 1) {
      const first = k * this.sound.chunk_s * OPUS_RATE;
      const count = Math.min(this.sound.chunk_s * OPUS_RATE, frames - first);
      const buffer = await this.decodeOne(k, source, context);
      parts.push(pcm16(buffer, Math.min(PREROLL, this.firstPacket(k)) * PACKET_FRAMES + this.sound.delay, count));
    }
    return new Blob(parts, { type: "audio/wav" });
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
