// PNG files, decoded and encoded here: canvases would lose colours under transparency, and more than 8 bits.
// It is what pictures/formats/png.py does (W3C, Portable Network Graphics, third edition).

import { Unusable, joined, orientationOf, showsOriginal, starts, text, withoutThumbnail } from "./metadata.js";
import { crc32 } from "./zip.js";

const SIGNATURE = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);
const STRUCTURE = ["IHDR", "IDAT", "IEND", "acTL", "fcTL", "fdAT"];
const TYPED = ["PLTE", "tRNS", "bKGD", "sBIT", "hIST"]; // copied only if the colour type stays
const KNOWN = [...TYPED, "cHRM", "gAMA", "iCCP", "sRGB", "cICP", "mDCV", "cLLI", "sPLT", "pHYs", "oFFs", "pCAL", "sCAL", "sTER"];
const SILENT = ["tIME", "iDOT", "caBX", "PLTE", "tRNS", ...STRUCTURE]; // left out without a name in the note
const SAMPLES = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 }; // by colour type
const PASSES = [[0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2]];
const RATIO = 1032; // the most that Deflate unpacks from a byte

function chunksOf(data) {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const found = [];
  for (let at = SIGNATURE.length; at + 12 <= data.length;) {
    const length = view.getUint32(at);
    const kind = text(data.subarray(at + 4, at + 8));
    const end = at + 12 + length;
    if (end > data.length || crc32([data.subarray(at + 4, end - 4)]) !== view.getUint32(end - 4)) break;
    found.push({ kind, body: data.subarray(at + 8, end - 4) });
    if (kind === "IEND") return { chunks: found, behind: data.subarray(end) };
    at = end;
  }
  throw new Unusable("damaged");
}

/** All bytes of a stream; Unusable if they are not `size`. */
async function inflated(parts, size) {
  const result = new Uint8Array(size);
  let at = 0;
  try {
    for await (const part of chunksFrom(new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate")))) {
      const fits = part.subarray(0, size - at);
      result.set(fits, at);
      at += fits.length;
      if (at === size) break; // bytes behind it are ignored, as every reader does
    }
  } catch (error) {
    if (!(error instanceof TypeError)) throw error; // damaged data
  }
  if (at < size) throw new Unusable("damaged");
  return result;
}

async function* chunksFrom(stream) {
  const reader = stream.getReader();
  try {
    for (let next = await reader.read(); !next.done; next = await reader.read()) yield next.value;
  } finally {
    await reader.cancel().catch(() => {});
  }
}

function paeth(a, b, c) {
  const p = a + b - c;
  const pa = Math.abs(p - a), pb = Math.abs(p - b), pc = Math.abs(p - c);
  return pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
}

/** Undo the filters of `rows` rows of `length` bytes, which begin at `at`, in place; the result has no filter bytes. */
function unfiltered(raw, at, rows, length, step) {
  const result = raw.subarray(at, at + rows * length); // each row moves ahead by a byte or more
  for (let y = 0; y < rows; y++) {
    const filter = raw[at++];
    if (filter > 4) throw new Unusable("damaged");
    const row = y * length;
    for (let x = 0; x < length; x++) {
      const a = x >= step ? result[row + x - step] : 0;
      const b = y ? result[row + x - length] : 0;
      const c = y && x >= step ? result[row + x - length - step] : 0;
      let guess = 0;
      if (filter === 1) guess = a;
      else if (filter === 2) guess = b;
      else if (filter === 3) guess = (a + b) >> 1;
      else if (filter === 4) guess = paeth(a, b, c);
      result[row + x] = raw[at++] + guess;
    }
  }
  return result;
}

/** The samples as they are stored, [height × width × samples], of any depth and interlacing. */
async function samplesOf(idat, { width, height, depth, samples, interlaced }) {
  const passes = (interlaced ? PASSES : [[0, 0, 1, 1]]).map(([x0, y0, dx, dy]) => {
    const columns = Math.ceil((width - x0) / dx), rows = Math.ceil((height - y0) / dy);
    return { x0, y0, dx, dy, columns, rows, length: Math.ceil((columns * samples * depth) / 8) };
  }).filter(({ columns, rows }) => columns > 0 && rows > 0);
  const size = passes.reduce((sum, { rows, length }) => sum + rows * (length + 1), 0);
  if (size > RATIO * idat.reduce((sum, part) => sum + part.length, 0) + 64) throw new Unusable("damaged");
  const raw = await inflated(idat, size);
  const result = new (depth === 16 ? Uint16Array : Uint8Array)(width * height * samples);
  let at = 0;
  for (const { x0, y0, dx, dy, columns, rows, length } of passes) {
    const bytes = unfiltered(raw, at, rows, length, Math.max((samples * depth) >> 3, 1));
    at += rows * (length + 1);
    if (depth === 8 && dx === 1) return bytes;
    for (let y = 0; y < rows; y++) {
      for (let i = 0; i < columns * samples; i++) {
        const x = Math.floor(i / samples);
        const bit = i * depth;
        const from = y * length + (bit >> 3);
        const value = depth === 16 ? (bytes[from] << 8) | bytes[from + 1]
          : (bytes[from] >> (8 - depth - (bit & 7))) & ((1 << depth) - 1);
        result[((y0 + y * dy) * width + x0 + x * dx) * samples + (i % samples)] = value;
      }
    }
  }
  return result;
}

/** Colours, and alpha where a palette or a transparent colour has it: {data, channels, type}. */
function coloured(stored, { type, depth, samples }, palette, transparent) {
  const count = stored.length / samples;
  if (type === 3) {
    if (!palette) throw new Unusable("damaged");
    const channels = transparent ? 4 : 3;
    const data = new Uint8Array(count * channels);
    for (let i = 0; i < count; i++) {
      for (let c = 0; c < 3; c++) data[i * channels + c] = palette[3 * stored[i] + c] ?? 0;
      if (transparent) data[i * channels + 3] = transparent[stored[i]] ?? 255;
    }
    return { data, channels, type: transparent ? 6 : 2 };
  }
  const scale = depth < 8 ? 255 / ((1 << depth) - 1) : 1;
  if (!transparent || type > 3) return { data: depth < 8 ? stored.map((one) => one * scale) : stored, channels: samples, type };
  const key = Array.from({ length: samples }, (_, c) => (transparent[2 * c] << 8) | transparent[2 * c + 1]);
  const data = new stored.constructor(count * (samples + 1));
  for (let i = 0; i < count; i++) {
    let same = true;
    for (let c = 0; c < samples; c++) {
      const value = stored[i * samples + c];
      same &&= value === key[c];
      data[i * (samples + 1) + c] = value * scale;
    }
    data[i * (samples + 1) + samples] = same ? 0 : depth === 16 ? 65535 : 255;
  }
  return { data, channels: samples + 1, type: type + 4 };
}

/** Whether a text chunk holds a profile or XMP that must not be copied as it is. */
async function shows(kind, body) {
  const end = body.indexOf(0);
  const keyword = text(body.subarray(0, end));
  if (keyword.toLowerCase().startsWith("raw profile type")) return true;
  if (keyword !== "XML:com.adobe.xmp") return false;
  return kind !== "iTXt" || body[end + 1] !== 0 || showsOriginal(body); // packed text is left out unread
}

async function kept(chunks, retyped, notes) {
  const result = [];
  for (const { kind, body } of chunks) {
    if (kind === "caBX") notes.add("noteCredentials");
    if (!KNOWN.includes(kind) && (STRUCTURE.includes(kind) || !(kind.charCodeAt(3) & 0x20))) {
      if (!SILENT.includes(kind)) notes.add("noteChunks");
      if (kind === "IDAT" && result.at(-1) !== null) result.push(null); // the place of the pixels
      continue;
    }
    if (SILENT.includes(kind) && (retyped || kind === "tIME" || kind === "iDOT" || kind === "caBX")) continue;
    if (retyped && TYPED.includes(kind)) continue;
    if (["tEXt", "zTXt", "iTXt"].includes(kind) && (await shows(kind, body))) {
      notes.add("noteXmp");
      continue;
    }
    const cleaned = kind === "eXIf" ? withoutThumbnail(body) : body;
    if (cleaned !== body) notes.add("noteThumbnail");
    result.push({ kind, body: cleaned });
  }
  return result;
}

function chunk(kind, body) {
  const whole = new Uint8Array(12 + body.length);
  const view = new DataView(whole.buffer);
  view.setUint32(0, body.length);
  for (let i = 0; i < 4; i++) whole[4 + i] = kind.charCodeAt(i);
  whole.set(body, 8);
  view.setUint32(8 + body.length, crc32([whole.subarray(4, 8 + body.length)]));
  return whole;
}

/** The rows, each with the filter of the smallest sum of differences, packed. */
async function deflated({ width, height, channels, top, data }) {
  const bytes = top > 255 ? 2 : 1;
  const step = channels * bytes;
  const length = width * step;
  let before = new Uint8Array(length), row = new Uint8Array(length);
  const tries = [1, 2, 4].map((filter) => Uint8Array.of(filter, ...new Uint8Array(length)));
  const packing = new CompressionStream("deflate");
  const writer = packing.writable.getWriter();
  const writing = (async () => {
    for (let y = 0; y < height; y++) {
      for (let i = 0, at = y * width * channels; i < width * channels; i++, at++) {
        if (bytes === 1) row[i] = data[at];
        else {
          row[2 * i] = data[at] >> 8;
          row[2 * i + 1] = data[at] & 255;
        }
      }
      const sums = [0, 0, 0];
      for (let x = 0; x < length; x++) {
        const a = x >= step ? row[x - step] : 0, b = before[x], c = x >= step ? before[x - step] : 0;
        const guesses = [a, b, paeth(a, b, c)];
        for (let k = 0; k < 3; k++) {
          const left = (row[x] - guesses[k]) & 255;
          tries[k][x + 1] = left;
          sums[k] += left < 128 ? left : 256 - left;
        }
      }
      const best = sums.indexOf(Math.min(...sums));
      await writer.write(tries[best].slice());
      [before, row] = [row, before];
    }
    await writer.close();
  })();
  const parts = [];
  for await (const part of chunksFrom(packing.readable)) parts.push(part);
  await writing;
  return parts;
}

/** As jpeg.read; decode: () -> a promise of the picture in file order, instead of `plain`. */
export async function read(data) {
  const { chunks, behind } = chunksOf(data);
  if (chunks[0].kind !== "IHDR" || chunks[0].body.length !== 13) throw new Unusable("damaged");
  const view = new DataView(chunks[0].body.buffer, chunks[0].body.byteOffset);
  const header = { width: view.getUint32(0), height: view.getUint32(4), depth: view.getUint8(8), type: view.getUint8(9) };
  header.samples = SAMPLES[header.type];
  header.interlaced = view.getUint8(12) === 1;
  if (!header.samples || ![1, 2, 4, 8, 16].includes(header.depth) || !header.width || !header.height) throw new Unusable("damaged");
  if (chunks.some(({ kind }) => kind === "acTL")) throw new Unusable("animated");
  const body = (wanted) => chunks.find(({ kind }) => kind === wanted)?.body;
  const transparent = header.type <= 3 ? body("tRNS") : undefined;
  const retyped = header.depth < 8 || header.type === 3 || transparent !== undefined;
  const notes = new Set(retyped ? ["noteRetyped"] : []);
  const parts = await kept(chunks, retyped, notes);
  if (behind.length >= 64 && behind.some(Boolean)) notes.add("noteBehind");
  const place = parts.indexOf(null);
  const colours = header.type === 0 || header.type === 4 ? 1 : 3;
  const top = header.depth === 16 ? 65535 : 255;
  let type = header.type;
  return {
    width: header.width, height: header.height, orientation: orientationOf(body("eXIf")), colours, lossless: true, notes: [...notes],
    decode: async () => {
      const idat = chunks.filter(({ kind }) => kind === "IDAT").map((one) => one.body);
      const found = coloured(await samplesOf(idat, header), header, body("PLTE"), transparent);
      type = found.type;
      return { width: header.width, height: header.height, channels: found.channels, colours, top, data: found.data };
    },
    write: async (picture) => {
      const start = new Uint8Array(13);
      new DataView(start.buffer).setUint32(0, picture.width);
      new DataView(start.buffer).setUint32(4, picture.height);
      start.set([top > 255 ? 16 : 8, type], 8);
      const whole = (list) => list.filter(Boolean).map((one) => chunk(one.kind, one.body));
      const packed = (await deflated(picture)).map((part) => chunk("IDAT", part));
      return joined([SIGNATURE, chunk("IHDR", start), ...whole(parts.slice(0, place)), ...packed, ...whole(parts.slice(place)),
        chunk("IEND", new Uint8Array(0))]);
    },
  };
}
