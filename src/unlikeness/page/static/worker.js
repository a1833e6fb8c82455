// Protects one file after the other, away from the page: decoded, protected, written, read again and compared.
//
// Messages in: {id, task: "open"}, {id, task: "inspect", file}, {id, task: "protect", file, settings}.
// Messages out: {id, result}, {id, refused: {key, values}}, {id, failed: text}, and {id, tile: true} in between.

import * as jpeg from "./jpeg.js";
import * as png from "./png.js";
import * as webp from "./webp.js";
import { Unusable, starts, text } from "./metadata.js";
import { open } from "./network.js";
import { gridOf, protect, turned } from "./protection.js";
import { crc32 } from "./zip.js";

const MOST_PIXELS = 100e6;
const BAND = 1 << 20; // pixels that are read from a canvas at a time
const KEPT = 0.01; // the smallest share of the change that a lossy file of a protected picture holds
const AMPLIFIED = 12;
const BRANDS = { avif: "AVIF", avis: "AVIF", "crx ": "RAW" };
const BEGINNINGS = [
  ["GIF8", "GIF"], ["8BPS", "PSD"], ["II*\0", "TIFF"], ["MM\0*", "TIFF"], ["II+\0", "TIFF"], ["MM\0+", "TIFF"], ["BM", "BMP"],
  ["\0\0\0\x0cJXL ", "JPEG XL"], ["\xff\x0a", "JPEG XL"], ["\0\0\0\x0cjP  ", "JPEG 2000"],
];

let network = null; // {device, run, about}

/** The reader's answer for a file's bytes; Unusable for what cannot be protected here. */
async function read(data) {
  let found;
  if (data[0] === 0xff && data[1] === 0xd8 && data[2] === 0xff) found = jpeg.read(data);
  else if (data[0] === 0x89 && starts(data.subarray(1), "PNG\r\n\x1a\n")) found = await png.read(data);
  else if (starts(data, "RIFF") && starts(data, "WEBP", 8)) found = webp.read(data);
  else {
    const brand = starts(data, "ftyp", 4) ? BRANDS[text(data.subarray(8, 12))] ?? "HEIC" : null;
    const kind = brand ?? BEGINNINGS.find(([start]) => [...start].every((one, i) => one.charCodeAt(0) === data[i]))?.[1];
    throw new Unusable(kind ? "kind" : "noPicture", { kind });
  }
  const { width, height } = found;
  if (!width || !height) throw new Unusable("damaged");
  if (width * height > MOST_PIXELS) throw new Unusable("large", { width, height, most: MOST_PIXELS / 1e6 });
  return found;
}

/** A picture's bands of rows as the browser decodes it: {y, rows, data: RGBA}. */
async function* bands(blob) {
  // The file has neither profile nor orientation, so no browser has anything to convert.
  const bitmap = await createImageBitmap(blob).catch(() => {
    throw new Unusable("damaged");
  });
  const { width, height } = bitmap;
  const step = Math.max(Math.floor(BAND / width), 1);
  const context = new OffscreenCanvas(width, Math.min(step, height)).getContext("2d", { willReadFrequently: true });
  for (let y = 0; y < height; y += step) {
    const rows = Math.min(step, height - y);
    context.drawImage(bitmap, 0, y, width, rows, 0, 0, width, rows);
    yield { y, rows, width, data: context.getImageData(0, 0, width, rows).data };
  }
  bitmap.close();
}

/** Without alpha, in file order. */
async function decoded(found) {
  if (found.decode) return found.decode();
  const { width, height, colours } = found;
  const data = new Uint8Array(width * height * colours);
  for await (const band of bands(found.plain)) {
    if (band.width !== width) throw new Unusable("damaged");
    for (let i = 0, to = band.y * width * colours; i < band.data.length; i += 4) {
      for (let c = 0; c < colours; c++) data[to++] = band.data[i + c];
    }
  }
  return { width, height, channels: colours, colours, top: 255, data };
}

/** Bytes of a WebP as the browser writes it. */
async function encoded({ width, height, data }, quality) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  const step = Math.max(Math.floor(BAND / width), 1);
  for (let y = 0; y < height; y += step) {
    const rows = Math.min(step, height - y);
    const band = new ImageData(width, rows);
    for (let i = 0, from = y * width * 3; i < band.data.length; i += 4) {
      for (let c = 0; c < 3; c++) band.data[i + c] = data[from++];
      band.data[i + 3] = 255;
    }
    context.putImageData(band, 0, y);
  }
  const blob = await canvas.convertToBlob({ type: "image/webp", quality });
  if (blob.type !== "image/webp") throw new Unusable("webpWriting");
  return new Uint8Array(await blob.arrayBuffer());
}

/** How far the written file is from the original: {linf [n/255], psnr [dB; null: not at all], kept}. */
async function compared(bytes, before, asked, lossless) {
  const { channels, colours, width, top } = before;
  const found = await read(bytes);
  let largest = 0, squares = 0, along = 0, wanted = 0;
  const add = (at, value) => {
    const difference = value - before.data[at];
    largest = Math.max(largest, Math.abs(difference));
    squares += difference ** 2;
    const change = asked.data[at] - before.data[at];
    along += change * difference;
    wanted += change ** 2;
  };
  if (found.decode) {
    const saved = await found.decode();
    for (let at = 0; at < saved.data.length; at += channels) for (let c = 0; c < colours; c++) add(at + c, saved.data[at + c]);
  } else {
    for await (const { y, data } of bands(found.plain)) {
      for (let i = 0, at = y * width * channels; i < data.length; i += 4, at += channels) {
        for (let c = 0; c < colours; c++) add(at + c, data[i + c]);
      }
    }
  }
  const mean = squares / (before.width * before.height * colours) / top ** 2;
  return {
    linf: Number(((largest * 255) / top).toFixed(4)), psnr: mean ? Number((-10 * Math.log10(mean)).toFixed(3)) : null,
    kept: lossless ? (wanted ? 1 : 0) : wanted ? along / wanted : 0,
  };
}

/** The change of the small copy on grey, so many times larger. */
async function amplified(total, { width, height }) {
  const image = new ImageData(width, height);
  for (let i = 0, from = 0; i < image.data.length; i += 4) {
    for (let c = 0; c < 3; c++) image.data[i + c] = 128 + AMPLIFIED * 255 * total[from++];
    image.data[i + 3] = 255;
  }
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas.convertToBlob({ type: "image/jpeg", quality: 0.85 });
}

async function digest(bytes) {
  if (!crypto.subtle) return null; // only over https and on this machine
  const sum = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return `sha256:${Array.from(sum, (one) => one.toString(16).padStart(2, "0")).join("")}`;
}

/** Refuse browsers that change pixels on their way through a canvas, against fingerprints. */
function checkCanvas() {
  const context = new OffscreenCanvas(16, 16).getContext("2d", { willReadFrequently: true });
  const image = new ImageData(16, 16);
  image.data.forEach((_, i) => (image.data[i] = i % 4 === 3 ? 255 : (i * 37) % 256));
  context.putImageData(image, 0, 0);
  if (context.getImageData(0, 0, 16, 16).data.some((one, i) => one !== image.data[i])) throw new Unusable("alteredCanvas");
}

async function inspect(file, resolution) {
  const found = await read(new Uint8Array(await file.arrayBuffer()));
  const size = found.orientation >= 5 ? [found.height, found.width] : [found.width, found.height];
  const grid = gridOf(...size, resolution);
  return { size, tiles: grid.rows.starts.length * grid.columns.starts.length };
}

async function protectFile(file, { budget, psnr }, onTile) {
  const began = performance.now();
  const data = new Uint8Array(await file.arrayBuffer());
  const found = await read(data);
  if (!found.decode) checkCanvas();
  const { orientation, lossless } = found;
  let before = turned(await decoded(found), orientation);
  const made = await protect(before, { ...network, budget, psnr, onTile });
  const after = turned(made.picture, orientation, true);
  const bytes = await found.write(after, encoded);
  before = turned(before, orientation, true);
  const { linf, psnr: reached, kept } = await compared(bytes, before, after, lossless);
  const unchanged = linf === 0 || kept < KEPT ? (lossless || linf === 0 ? "unchanged" : "coarse") : null;
  const written = unchanged ? data : bytes;
  return {
    blob: new Blob([written], { type: file.type }), amplified: await amplified(made.total, made.grid), crc: crc32([written]),
    size: [made.picture.width, made.picture.height], unchanged, notes: unchanged ? [] : found.notes,
    entry: {
      status: unchanged ? "unchanged" : "protected", reason: null, input_digest: await digest(data),
      output_digest: await digest(written), width: made.picture.width, height: made.picture.height, bytes_in: data.length,
      bytes_out: written.length, linf: unchanged ? 0 : linf, psnr: unchanged ? null : reached, ssim: null, lossless,
      seconds: Number(((performance.now() - began) / 1000).toFixed(3)),
    },
  };
}

const TASKS = {
  open: async ({ about }) => {
    network ??= { ...(await open(about.network)), resolution: about.resolution };
    return { device: network.device };
  },
  inspect: ({ file, resolution }) => inspect(file, resolution),
  protect: ({ id, file, settings }) => protectFile(file, settings, () => postMessage({ id, tile: true })),
};

// One task at a time: each may hold a large picture.
let waiting = Promise.resolve();
addEventListener("message", ({ data: message }) => {
  waiting = waiting.then(async () => {
    try {
      postMessage({ id: message.id, result: await TASKS[message.task](message) });
    } catch (error) {
      if (error instanceof Unusable) postMessage({ id: message.id, refused: { key: error.key, values: error.values } });
      else postMessage({ id: message.id, failed: String(error?.message ?? error) });
    }
  });
});
