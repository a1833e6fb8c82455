// WebP files (RFC 9649, RFC 6386): the browser encodes the picture, and every other chunk is copied around it.

import { Unusable, bytesOf, joined, orientationOf, showsOriginal, text, withoutThumbnail } from "./metadata.js";

const PICTURE = ["VP8 ", "VP8L", "ALPH"];
const FLAGS = { "ICCP": 0x20, "EXIF": 0x08, "XMP ": 0x04 };
const ANIMATION = 0x02, ALPHA = 0x10;
const FALLBACK_QUALITY = 90;

function chunksOf(data) {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const end = 8 + view.getUint32(4, true);
  const found = [];
  if (end > data.length) throw new Unusable("damaged");
  for (let at = 12; at + 8 <= end;) {
    const length = view.getUint32(at + 4, true);
    if (at + 8 + length > end) throw new Unusable("damaged");
    found.push({ kind: text(data.subarray(at, at + 4)), body: data.subarray(at + 8, at + 8 + length) });
    at += 8 + length + (length & 1);
  }
  return { chunks: found, behind: data.subarray(end) };
}

function container(chunks) {
  const parts = [];
  for (const { kind, body } of chunks) {
    const head = new Uint8Array(8);
    head.set(bytesOf(kind));
    new DataView(head.buffer).setUint32(4, body.length, true);
    parts.push(head, body, new Uint8Array(body.length & 1));
  }
  const whole = joined([bytesOf("RIFF\0\0\0\0WEBP"), ...parts]);
  new DataView(whole.buffer).setUint32(4, whole.length - 8, true);
  return whole;
}

/** Bits of the boolean decoder with even odds (RFC 6386, 7.3). */
class Bits {
  constructor(data) {
    this.data = data;
    this.value = (data[0] << 8) | data[1];
    this.at = 2;
    this.range = 255;
    this.shifted = 0;
  }

  bit() {
    const split = 1 + ((this.range - 1) >> 1);
    const bit = this.value >= split << 8;
    this.range = bit ? this.range - split : split;
    if (bit) this.value -= split << 8;
    for (; this.range < 128; this.range <<= 1) {
      this.value <<= 1;
      if (++this.shifted === 8) {
        this.shifted = 0;
        this.value |= this.data[this.at++] ?? 0;
      }
    }
    return bit ? 1 : 0;
  }

  number(count) {
    let value = 0;
    while (count--) value = (value << 1) | this.bit();
    return value;
  }

  optional(count) {
    if (!this.number(1)) return 0;
    const value = this.number(count);
    return this.number(1) ? -value : value;
  }
}

/** The quality, 1 to 100, that gives a lossy frame's mean quantiser: the inverse of libwebp's curve. */
function qualityOf(frame) {
  if (frame.length < 12 || frame[0] & 1) return FALLBACK_QUALITY;
  const bits = new Bits(frame.subarray(10));
  bits.number(2);
  let segments = [], absolute = false;
  if (bits.number(1)) {
    const map = bits.number(1), levels = bits.number(1);
    if (levels) {
      absolute = bits.number(1) === 1;
      segments = [0, 1, 2, 3].map(() => bits.optional(7));
      for (let i = 0; i < 4; i++) bits.optional(6);
    }
    for (let i = 0; map && i < 3; i++) if (bits.number(1)) bits.number(8);
  }
  bits.number(10);
  if (bits.number(1) && bits.number(1)) for (let i = 0; i < 8; i++) bits.optional(6);
  bits.number(2);
  const base = bits.number(7);
  const quantisers = (segments.length ? segments : [base]).map((one) =>
    Math.min(Math.max(segments.length && !absolute ? base + one : one, 0), 127));
  const linear = (1 - quantisers.reduce((a, b) => a + b) / quantisers.length / 127) ** 3;
  const x = linear < 0.5 ? linear * 1.5 : (linear + 1) / 2;
  return Math.min(Math.max(100 * x, 1), 99.5); // browsers write 100 without loss
}

/** As jpeg.read; write: (picture in file order, encodes: (picture, quality) -> a promise of a WebP's bytes). */
export function read(data) {
  const { chunks, behind } = chunksOf(data);
  const find = (kind) => chunks.find((one) => one.kind === kind)?.body;
  const lossy = find("VP8 "), lossless = find("VP8L");
  const extended = find("VP8X");
  if (chunks.some(({ kind }) => kind === "ANMF") || (extended && extended[0] & ANIMATION)) throw new Unusable("animated");
  let width, height;
  if (lossy?.length >= 10) {
    [width, height] = [6, 8].map((at) => (lossy[at] | (lossy[at + 1] << 8)) & 0x3fff);
  } else if (lossless?.length >= 5) {
    const bits = new DataView(lossless.buffer, lossless.byteOffset).getUint32(1, true);
    [width, height] = [(bits & 0x3fff) + 1, ((bits >>> 14) & 0x3fff) + 1];
  } else throw new Unusable("damaged");
  if (find("ALPH") || (lossless && lossless[4] & 0x10)) throw new Unusable("webpAlpha");
  const notes = new Set();
  const kept = [];
  for (const { kind, body } of chunks) {
    if (PICTURE.includes(kind) || kind === "VP8X") continue;
    if (kind === "C2PA") {
      notes.add("noteCredentials");
    } else if (kind === "XMP " && showsOriginal(body)) {
      notes.add("noteXmp");
    } else {
      const cleaned = kind === "EXIF" ? withoutThumbnail(body) : body;
      if (cleaned !== body) notes.add("noteThumbnail");
      kept.push({ kind, body: cleaned });
    }
  }
  if (behind.length >= 64 && behind.some(Boolean)) notes.add("noteBehind");
  return {
    width, height, orientation: orientationOf(find("EXIF")), colours: 3, lossless: Boolean(lossless), notes: [...notes],
    plain: new Blob([container(chunks.filter(({ kind }) => PICTURE.includes(kind)))], { type: "image/webp" }),
    write: async (picture, encodes) => {
      const encoded = await encodes(picture, lossless ? 1 : qualityOf(lossy) / 100);
      const written = chunksOf(encoded).chunks.filter(({ kind }) => PICTURE.includes(kind));
      if (written.some(({ kind }) => kind === "VP8L") !== Boolean(lossless)) throw new Unusable("webpWriting");
      if (!kept.length) return container(written);
      const head = new Uint8Array(10);
      head[0] = kept.reduce((flags, { kind }) => flags | (FLAGS[kind] ?? 0), written.some(({ kind }) => kind === "ALPH") ? ALPHA : 0);
      [width - 1, height - 1].forEach((side, i) => head.set([side & 255, (side >> 8) & 255, side >> 16], 4 + 3 * i));
      const icc = kept.filter(({ kind }) => kind === "ICCP");
      const rest = kept.filter(({ kind }) => kind !== "ICCP");
      return container([{ kind: "VP8X", body: head }, ...icc, ...written, ...rest]);
    },
  };
}
