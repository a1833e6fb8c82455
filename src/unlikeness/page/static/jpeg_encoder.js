// A baseline JPEG encoder for one or three components, with given quantisation tables (ITU-T T.81).

import { joined } from "./metadata.js";

const ZIGZAG = Uint8Array.of(
  0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28,
  35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55,
  62, 63);

// The typical Huffman tables of annex K.3: numbers of codes by length, then the values.
const AC_LUMA_TAIL = [
  "2433627282090a161718191a25262728292a3435363738393a434445464748494a535455565758595a636465666768696a737475767778",
  "797a838485868788898a92939495969798999aa2a3a4a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9da",
  "e1e2e3e4e5e6e7e8e9eaf1f2f3f4f5f6f7f8f9fa",
].join("");
const AC_CHROMA_TAIL = [
  "262728292a35363738393a434445464748494a535455565758595a636465666768696a737475767778797a82838485868788898a929394",
  "95969798999aa2a3a4a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae2e3e4e5e6e7e8e9eaf2f3f4f5",
  "f6f7f8f9fa",
].join("");
const HUFFMAN = [
  ["00010501010101010100000000000000", "000102030405060708090a0b"],
  ["0002010303020403050504040000017d", `01020300041105122131410613516107227114328191a1082342b1c11552d1f0${AC_LUMA_TAIL}`],
  ["00030101010101010101010000000000", "000102030405060708090a0b"],
  ["00020102040403040705040400010277",
    `000102031104052131061241510761711322328108144291a1b1c109233352f0156272d10a162434e125f11718191a${AC_CHROMA_TAIL}`],
].map((pair) => pair.map((digits) => Uint8Array.from(digits.match(/../g), (one) => parseInt(one, 16))));

/** For each value its code and the code's length. */
function codesOf([counts, values]) {
  const codes = new Uint16Array(256);
  const lengths = new Uint8Array(256);
  let code = 0, at = 0;
  for (let length = 1; length <= 16; length++, code <<= 1) {
    for (let i = 0; i < counts[length - 1]; i++, at++, code++) {
      codes[values[at]] = code;
      lengths[values[at]] = length;
    }
  }
  return { codes, lengths };
}

const segment = (marker, body) =>
  joined([Uint8Array.of(0xff, marker, (body.length + 2) >> 8, (body.length + 2) & 255), body]);

/** Bits, the highest first, with a zero byte behind each 0xFF. */
class Bits {
  constructor(size) {
    this.bytes = new Uint8Array(size);
    this.at = this.value = this.count = 0;
  }

  add(value, count) {
    this.value = (this.value << count) | value;
    this.count += count;
    while (this.count >= 8) {
      this.count -= 8;
      const byte = (this.value >> this.count) & 255;
      this.bytes[this.at++] = byte;
      if (byte === 255) this.bytes[this.at++] = 0;
    }
    this.value &= (1 << this.count) - 1;
  }

  /** Room for further bytes. */
  reserve(more) {
    if (this.at + more <= this.bytes.length) return;
    const larger = new Uint8Array(2 * this.bytes.length + more);
    larger.set(this.bytes);
    this.bytes = larger;
  }

  finished() {
    if (this.count) this.add((1 << (8 - this.count)) - 1, 8 - this.count);
    return this.bytes.subarray(0, this.at);
  }
}

/** The scaled DCT of Arai, Agui and Nakajima, along rows or columns of a block in place. */
function transform(block, start, step, lines) {
  for (let line = 0, at = start; line < 8; line++, at += lines) {
    const a = block[at], b = block[at + step], c = block[at + 2 * step], d = block[at + 3 * step];
    const e = block[at + 4 * step], f = block[at + 5 * step], g = block[at + 6 * step], h = block[at + 7 * step];
    const s0 = a + h, s1 = b + g, s2 = c + f, s3 = d + e, s4 = d - e, s5 = c - f, s6 = b - g, s7 = a - h;
    const t0 = s0 + s3, t3 = s0 - s3, t1 = s1 + s2, t2 = s1 - s2;
    const z1 = (t2 + t3) * Math.SQRT1_2;
    block[at] = t0 + t1;
    block[at + 4 * step] = t0 - t1;
    block[at + 2 * step] = t3 + z1;
    block[at + 6 * step] = t3 - z1;
    const u0 = s4 + s5, u1 = s5 + s6, u2 = s6 + s7;
    const z5 = (u0 - u2) * 0.38268343236508977;
    const z2 = 0.5411961001461969 * u0 + z5, z4 = 1.3065629648763766 * u2 + z5, z3 = u1 * Math.SQRT1_2;
    const y1 = s7 + z3, y2 = s7 - z3;
    block[at + 5 * step] = y2 + z2;
    block[at + 3 * step] = y2 - z2;
    block[at + step] = y1 + z4;
    block[at + 7 * step] = y1 - z4;
  }
}

/** One over table times the transform's scale, in the order of the transform. table: 64 values in zigzag order. */
function factorsOf(table) {
  const scale = [1, 1.387039845, 1.306562965, 1.175875602, 1, 0.785694958, 0.5411961, 0.275899379];
  const factors = new Float64Array(64);
  for (let i = 0; i < 64; i++) {
    const place = ZIGZAG[i];
    factors[place] = 1 / (8 * scale[place >> 3] * scale[place & 7] * Math.min(table[i], 255));
  }
  return factors;
}

const coded = new Int32Array(64);

/** Transform, quantise and write a block; returns its first coefficient. */
function writeBlock(bits, block, factors, before, dc, ac) {
  transform(block, 0, 1, 8);
  transform(block, 0, 8, 1);
  let last = 0;
  for (let i = 0; i < 64; i++) {
    const value = Math.round(block[ZIGZAG[i]] * factors[ZIGZAG[i]]);
    coded[i] = i ? Math.min(Math.max(value, -1023), 1023) : value;
    if (coded[i]) last = i;
  }
  const number = (value, run, table) => {
    const size = 32 - Math.clz32(Math.abs(value));
    const symbol = (run << 4) | size;
    bits.add(table.codes[symbol], table.lengths[symbol]);
    if (size) bits.add(value < 0 ? value + (1 << size) - 1 : value, size);
  };
  bits.reserve(512);
  number(coded[0] - before, 0, dc);
  let run = 0;
  for (let i = 1; i <= last; i++) {
    if (!coded[i]) {
      run++;
      continue;
    }
    for (; run > 15; run -= 16) bits.add(ac.codes[0xf0], ac.lengths[0xf0]);
    number(coded[i], run, ac);
    run = 0;
  }
  if (last < 63) bits.add(ac.codes[0], ac.lengths[0]);
  return coded[0];
}

/** A strip of rows as planes from -128 to 127, padded by repetition to whole blocks. */
function planesOf({ width, height, channels, colours, data }, y0, rows, columns) {
  const planes = Array.from({ length: colours }, () => new Float32Array(rows * columns));
  for (let y = 0; y < rows; y++) {
    const row = Math.min(y0 + y, height - 1) * width;
    for (let x = 0; x < columns; x++) {
      const from = (row + Math.min(x, width - 1)) * channels;
      const to = y * columns + x;
      if (colours === 1) {
        planes[0][to] = data[from] - 128;
        continue;
      }
      const r = data[from], g = data[from + 1], b = data[from + 2];
      planes[0][to] = Math.round(0.299 * r + 0.587 * g + 0.114 * b) - 128;
      planes[1][to] = Math.round(-0.168735892 * r - 0.331264108 * g + 0.5 * b);
      planes[2][to] = Math.round(0.5 * r - 0.418687589 * g - 0.081312411 * b);
    }
  }
  return planes;
}

/** The mean of h × v values. */
function halved(plane, columns, rows, h, v) {
  if (h === 1 && v === 1) return plane;
  const width = columns / h;
  const small = new Float32Array((width * rows) / v);
  for (let y = 0; y < rows / v; y++) {
    for (let x = 0; x < width; x++) {
      let sum = 0;
      for (let j = 0; j < v; j++) for (let i = 0; i < h; i++) sum += plane[(y * v + j) * columns + x * h + i];
      small[y * width + x] = sum / (h * v);
    }
  }
  return small;
}

/**
 * A JPEG file's bytes. picture: 8 bits, 1 or 3 colours. tables: of each component, 64 values in zigzag order.
 * sampling: how far chroma is reduced, [across, down]. head: the metadata segments.
 */
export function encode(picture, { tables, sampling: [h, v], head }) {
  const { width, height, colours } = picture;
  const parts = tables.map((table, i) => ({
    factors: factorsOf(table), before: 0, h: i ? 1 : h, v: i ? 1 : v,
    dc: codesOf(HUFFMAN[i ? 2 : 0]), ac: codesOf(HUFFMAN[i ? 3 : 1]),
  }));
  const bits = new Bits(Math.max(width * height >> 2, 4096));
  const rows = 8 * v, columns = Math.ceil(width / (8 * h)) * 8 * h;
  const block = new Float64Array(64);
  for (let y0 = 0; y0 < height; y0 += rows) {
    const planes = planesOf(picture, y0, rows, columns).map((plane, i) => (i ? halved(plane, columns, rows, h, v) : plane));
    for (let unit = 0; unit < columns / (8 * h); unit++) {
      parts.forEach((part, i) => {
        const stride = i ? columns / h : columns;
        for (let j = 0; j < part.v; j++) {
          for (let k = 0; k < part.h; k++) {
            const from = 8 * j * stride + 8 * (unit * part.h + k);
            for (let y = 0; y < 8; y++) for (let x = 0; x < 8; x++) block[8 * y + x] = planes[i][from + y * stride + x];
            part.before = writeBlock(bits, block, part.factors, part.before, part.dc, part.ac);
          }
        }
      });
    }
  }
  const frame = [8, height >> 8, height & 255, width >> 8, width & 255, colours];
  const distinct = [...new Set(tables)];
  parts.forEach((part, i) => frame.push(i + 1, (part.h << 4) | part.v, distinct.indexOf(tables[i])));
  const scan = [colours];
  parts.forEach((_, i) => scan.push(i + 1, i ? 0x11 : 0));
  return joined([
    Uint8Array.of(0xff, 0xd8), head,
    ...distinct.map((table, i) => segment(0xdb, Uint8Array.of(i, ...table.map((one) => Math.min(one, 255))))),
    segment(0xc0, Uint8Array.from(frame)),
    ...HUFFMAN.slice(0, colours === 1 ? 2 : 4).map(([counts, values], i) =>
      segment(0xc4, joined([Uint8Array.of([0x00, 0x10, 0x01, 0x11][i]), counts, values]))),
    segment(0xda, Uint8Array.from([...scan, 0, 63, 0])), bits.finished(), Uint8Array.of(0xff, 0xd9),
  ]);
}
