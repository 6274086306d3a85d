// The microphone as a 16 kHz mono WAV: the speech encoder's own rate, and a format that every browser can make.

import { dataUrl } from "./screen.js";

const SAMPLE_RATE_HZ = 16000;
const $ = (id) => document.getElementById(id);

export class Recorder {
  constructor(onError) {
    this.url = null;
    this.onError = onError;
    $("record").addEventListener("click", () => (this.media ? this.media.stop() : this.#start()));
    $("drop-sound").addEventListener("click", () => this.clear());
  }

  clear() {
    this.url = null;
    $("sound").hidden = true;
    $("playback").removeAttribute("src");
  }

  async #start() {
    let source;
    try {
      source = await navigator.mediaDevices.getUserMedia({ audio: true });
    } catch (error) {
      // browsers hand out the microphone on https:// and on localhost only
      this.onError(`no microphone: ${error.message || "the browser gives none to this address"}`);
      return;
    }
    const pieces = [];
    this.media = new MediaRecorder(source);
    this.media.addEventListener("dataavailable", (event) => pieces.push(event.data));
    this.media.addEventListener("stop", async () => {
      source.getTracks().forEach((track) => track.stop());
      this.media = null;
      clearInterval(this.clock);
      this.#label("Speak");
      try {
        const wav = await toWav(new Blob(pieces));
        this.url = await dataUrl(wav);
        $("playback").src = URL.createObjectURL(wav);
        $("sound").hidden = false;
      } catch (error) {
        this.onError(`the recording cannot be read: ${error.message}`);
      }
    });
    this.media.start();
    this.#label("Stop (0 s)");
    let seconds = 0;
    this.clock = setInterval(() => this.#label(`Stop (${++seconds} s)`), 1000);
  }

  #label(text) {
    $("record").setAttribute("aria-pressed", String(Boolean(this.media)));
    $("record-text").textContent = text;
  }
}

async function toWav(blob) {
  const decoded = await new OfflineAudioContext(1, 1, SAMPLE_RATE_HZ).decodeAudioData(await blob.arrayBuffer());
  const context = new OfflineAudioContext(1, Math.max(1, decoded.length), SAMPLE_RATE_HZ);
  const source = context.createBufferSource();
  source.buffer = decoded;
  source.connect(context.destination);
  source.start();
  return encodeWav((await context.startRendering()).getChannelData(0));
}

/** 16-bit PCM mono. */
export function encodeWav(samples) {
  const view = new DataView(new ArrayBuffer(44 + samples.length * 2));
  const text = (at, value) => [...value].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + samples.length * 2, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, SAMPLE_RATE_HZ, true);
  view.setUint32(28, SAMPLE_RATE_HZ * 2, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, samples.length * 2, true);
  samples.forEach((value, i) => view.setInt16(44 + i * 2, Math.max(-1, Math.min(1, value)) * 0x7fff, true));
  return new Blob([view], { type: "audio/wav" });
}
