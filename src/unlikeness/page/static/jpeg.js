// JPEG files: what is kept of them, and how they are written again. It is what pictures/formats/jpeg.py does: the
// file's own quantisation tables and subsampling, and every metadata segment but thumbnails and announcements.

import {
  Unusable, joined, orientationOf, resourcesWithout, showsOriginal, starts, withoutThumbnail,
} from "./metadata.js";
import { encode } from "./jpeg_encoder.js";

const EXIF = "Exif\0", XMP = "http://ns.adobe.com/xap/1.0/\0", XMP_MORE = "http://ns.adobe.com/xmp/extension/\0";
const PHOTOSHOP = "Photoshop 3.0\0", GAIN_MAP = "urn:iso:std:iso:ts:21496:-1\0";
const SEGMENT = 0xffff - 2;
const APP0 = 0xe0, APP1 = 0xe1, APP2 = 0xe2, APP11 = 0xeb, APP13 = 0xed, APP14 = 0xee, COM = 0xfe;
const PADDING = 64;

/** The segments up to the first scan, each {marker, start, end, body}. */
function segmentsOf(data) {
  const found = [];
  let at = 2;
  while (at + 4 <= data.length) {
    const marker = data[at + 1];
    if (data[at] !== 0xff || marker === 0xff || marker <= 0x01 || (marker >= 0xd0 && marker <= 0xd8)) {
      at++;
      continue;
    }
    const length = (data[at + 2] << 8) | data[at + 3];
    if (marker === 0xd9 || length < 2) break;
    found.push({ marker, start: at, end: at + 2 + length, body: data.subarray(at + 4, at + 2 + length) });
    at += 2 + length;
    if (marker === 0xda) break;
  }
  return found;
}

/** {marker, width, height, components: [{id, h, v, table}]} of the frame header. */
function frameOf(segments) {
  const frame = segments.find(({ marker, body }) =>
    marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker) && body.length >= 6 + 3 * body[5]);
  if (!frame) throw new Unusable("damaged");
  const { marker, body } = frame;
  const components = Array.from({ length: body[5] }, (_, i) => ({
    id: body[6 + 3 * i], h: body[7 + 3 * i] >> 4, v: body[7 + 3 * i] & 15, table: body[8 + 3 * i],
  }));
  if (components.length === 4) throw new Unusable("cmyk");
  if (body[0] !== 8 || ![0xc0, 0xc1, 0xc2].includes(marker) || ![1, 3].includes(components.length)) {
    throw new Unusable("oddJpeg");
  }
  return { marker, height: (body[1] << 8) | body[2], width: (body[3] << 8) | body[4], components };
}

/** The quantisation tables by number, each 64 values in zigzag order. */
function tablesOf(segments) {
  const tables = {};
  for (const { body } of segments.filter(({ marker }) => marker === 0xdb)) {
    for (let at = 0; at < body.length;) {
      const wide = body[at] >> 4;
      const size = wide ? 128 : 64;
      if (at + 1 + size > body.length) throw new Unusable("damaged");
      tables[body[at] & 15] = Array.from({ length: 64 }, (_, i) =>
        wide ? (body[at + 1 + 2 * i] << 8) | body[at + 2 + 2 * i] : body[at + 1 + i]);
      at += 1 + size;
    }
  }
  return tables;
}

/** The parts of a file's metadata as they may be copied, and the notes of what was taken out. */
function headOf(segments) {
  const notes = new Set();
  const xmp = segments.filter(({ marker, body }) => marker === APP1 && (starts(body, XMP) || starts(body, XMP_MORE)));
  const packets = xmp.map(({ body }) => body.subarray(starts(body, XMP) ? 0 : XMP_MORE.length + 40));
  const shown = showsOriginal(joined(packets));
  if (shown) notes.add("noteXmp");
  // Photoshop's resources go on from one segment to the next, so they are cleaned as one.
  const ours = segments.filter(({ marker, body }) => marker === APP13 && starts(body, PHOTOSHOP));
  const resources = joined(ours.map(({ body }) => body.subarray(PHOTOSHOP.length)));
  const cleaned = resourcesWithout(resources);
  if (cleaned !== resources) notes.add("noteThumbnail");
  const kept = [];
  for (const { marker, body } of segments) {
    if (!((marker >= 0xe0 && marker <= 0xef) || marker === COM)) continue;
    let left = body;
    if (marker === APP0 && starts(body, "JFXX\0")) left = null;
    if (marker === APP1 && starts(body, EXIF)) left = withoutThumbnail(body);
    if (marker === APP13 && cleaned !== resources && starts(body, PHOTOSHOP)) {
      const place = ours.findIndex((one) => one.body === body) * (SEGMENT - PHOTOSHOP.length);
      const part = cleaned.subarray(place, place + SEGMENT - PHOTOSHOP.length);
      left = part.length || !place ? joined([body.subarray(0, PHOTOSHOP.length), part]) : null;
    }
    if (left !== body) notes.add("noteThumbnail");
    if (marker === APP1 && shown && (starts(body, XMP) || starts(body, XMP_MORE))) left = null;
    if (marker === APP2 && starts(body, GAIN_MAP)) {
      notes.add("noteAnnounced");
      left = null;
    }
    if (marker === APP11 && starts(body, "JP")) {
      notes.add("noteCredentials");
      left = null;
    }
    if (starts(body, "MPF\0") || (marker === APP14 && body[11] !== 1)) left = null;
    if (left) kept.push(Uint8Array.of(0xff, marker, (left.length + 2) >> 8, (left.length + 2) & 255), left);
  }
  return { head: joined(kept), notes };
}

/** What follows the end of the picture: a preview, a gain map, a clip. Unusable if the picture has no end. */
function behind(data, from) {
  for (let at = from; at + 1 < data.length; at++) {
    if (data[at] === 0xff && data[at + 1] === 0xd9) return data.subarray(at + 2);
  }
  throw new Unusable("damaged"); // browsers would show the missing part grey
}

/**
 * What is known of a JPEG file before it is decoded: {width, height, orientation, colours, lossless, notes (keys),
 * plain: a Blob of the same picture without profile and orientation, so that browsers leave its pixels alone,
 * write: (picture in file order) -> bytes}.
 */
export function read(data) {
  const segments = segmentsOf(data);
  const { marker, width, height, components } = frameOf(segments);
  const scan = segments.at(-1);
  if (scan.marker !== 0xda) throw new Unusable("damaged");
  const tables = tablesOf(segments);
  const used = components.map(({ table }) => tables[table]);
  if (used.some((table) => !table || table.includes(0))) throw new Unusable("damaged");
  const { head, notes } = headOf(segments);
  if (marker === 0xc2) notes.add("noteBaseline");
  const tail = behind(data, scan.end);
  if (tail.length >= PADDING && tail.some(Boolean)) notes.add("noteBehind");
  // Chroma may be halved across, down or both; anything else is written at the full size.
  const [luma, ...chroma] = components;
  const usual = luma.h <= 2 && luma.v <= 2 && chroma.every(({ h, v }) => h === 1 && v === 1);
  const reduced = components.some(({ h, v }) => h !== luma.h || v !== luma.v);
  if (!usual && reduced) notes.add("noteSubsampling");
  const sampling = usual && chroma.length ? [luma.h, luma.v] : [1, 1];
  const application = ({ marker: one }) => one >= 0xe1 && one <= 0xef && one !== APP14;
  const plain = [data.subarray(0, 2)];
  for (const one of segments) if (!application(one)) plain.push(data.subarray(one.start, one.end));
  plain.push(data.subarray(scan.end, data.length - tail.length));
  const exif = segments.find((one) => one.marker === APP1 && starts(one.body, EXIF));
  return {
    width, height, orientation: orientationOf(exif?.body), colours: components.length === 1 ? 1 : 3, lossless: false,
    notes: [...notes], plain: new Blob(plain, { type: "image/jpeg" }),
    write: (picture) => encode(picture, { tables: used, sampling, head }),
  };
}
