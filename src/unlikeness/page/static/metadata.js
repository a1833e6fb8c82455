// Metadata that a protected copy may keep: EXIF, Photoshop's resources and XMP, without pictures of the unprotected
// original. It is what pictures/formats/metadata.py does, except that XMP with such a picture is left out whole.

/** Bytes that cannot be understood or protected: `key` of strings.json, and the values in its text. */
export class Unusable extends Error {
  constructor(key, values = {}) {
    super(key);
    this.key = key;
    this.values = values;
  }
}

export const text = (bytes) => new TextDecoder("latin1").decode(bytes);
export const bytesOf = (string) => Uint8Array.from(string, (one) => one.charCodeAt(0));
export const starts = (bytes, string, at = 0) => text(bytes.subarray(at, at + string.length)) === string;

export function joined(parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

// Namespaces of XMP that hold a picture, or announce a video, gain map or further picture that is left out.
const SHOWN = [
  "http://ns.google.com/photos/", "http://ns.adobe.com/hdr-gain-map/1.0/", "http://ns.apple.com/HDRGainMap/1.0/",
  "http://ns.apple.com/HDRToneMap/1.0/", "http://ns.apple.com/pixeldatainfo/1.0/", "http://ns.xiaomi.com/photos/1.0/camera/",
  "http://ns.oplus.com/photos/1.0/camera/", "http://ns.samsung.com/photos/1.0/camera/", "http://ns.adobe.com/xap/1.0/g/img/",
  ":Thumbnails",
];

/** Whether XMP shows the original, or announces data that is left out. UTF-16 and UTF-32 are read as well. */
export function showsOriginal(xmp) {
  const plain = text(xmp).replaceAll("\0", "");
  return SHOWN.some((name) => plain.includes(name));
}

/** {view, base, entry(i)}: the first directory of an EXIF block, with or without its "Exif" prefix; null if none. */
function firstDirectory(exif) {
  const base = starts(exif, "Exif\0") ? 6 : 0;
  const little = starts(exif, "II*\0", base);
  if (!little && !starts(exif, "MM\0*", base)) return null;
  return { view: new DataView(exif.buffer, exif.byteOffset, exif.byteLength), base, little };
}

/** The places of a directory's entries, and of the link behind them. RangeError if they lead out of the block. */
function entriesOf({ view, base, little }, pointer) {
  const at = base + view.getUint32(pointer, little);
  const count = view.getUint16(at, little);
  view.getUint8(at + 1 + 12 * count);
  return { places: Array.from({ length: count }, (_, i) => at + 2 + 12 * i), link: at + 2 + 12 * count };
}

/** The number that an entry of one SHORT or LONG holds. */
function valueOf({ view, little }, place) {
  return view.getUint16(place + 2, little) === 3 ? view.getUint16(place + 8, little) : view.getUint32(place + 8, little);
}

/** EXIF's orientation, 1 to 8; 1 if it says nothing. */
export function orientationOf(exif) {
  const directory = exif && firstDirectory(exif);
  if (!directory) return 1;
  try {
    for (const place of entriesOf(directory, directory.base + 4).places) {
      if (directory.view.getUint16(place, directory.little) === 0x0112) {
        const value = valueOf(directory, place);
        return value >= 1 && value <= 8 ? value : 1;
      }
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // it leads out of the block, where nothing is
  }
  return 1;
}

/** An EXIF block whose thumbnail is zeros; the block itself if it has none. */
export function withoutThumbnail(exif) {
  const directory = firstDirectory(exif);
  if (!directory) return exif;
  const { view, base, little } = directory;
  try {
    const { link } = entriesOf(directory, base + 4);
    if (!view.getUint32(link, little)) return exif;
    const cleaned = exif.slice();
    cleaned.fill(0, link, link + 4);
    const { places, link: end } = entriesOf(directory, link);
    const numbers = (tag) => {
      const place = places.find((one) => view.getUint16(one, little) === tag);
      if (place === undefined) return [];
      const short = view.getUint16(place + 2, little) === 3;
      const count = view.getUint32(place + 4, little);
      const size = short ? 2 : 4;
      const from = count * size <= 4 ? place + 8 : base + view.getUint32(place + 8, little);
      if (from + count * size > exif.length) throw new RangeError();
      return Array.from({ length: count }, (_, i) =>
        short ? view.getUint16(from + 2 * i, little) : view.getUint32(from + 4 * i, little));
    };
    const erase = (starting, lengths, allowed) => starting.forEach((start, i) => {
      const from = base + start;
      if (lengths[i] && from + lengths[i] <= exif.length && allowed(from)) cleaned.fill(0, from, from + lengths[i]);
    });
    erase(numbers(0x0201), numbers(0x0202), (from) => exif[from] === 0xff && exif[from + 1] === 0xd8);
    erase(numbers(0x0111), numbers(0x0117), (from) => from >= end);
    return cleaned;
  } catch (error) {
    if (error instanceof RangeError) return exif;
    throw error;
  }
}

/** Photoshop's image resources without thumbnails; the block itself if it has none or is cut off. */
export function resourcesWithout(block) {
  const view = new DataView(block.buffer, block.byteOffset, block.byteLength);
  const kept = [];
  let at = 0;
  while (starts(block, "8BIM", at) && at + 12 <= block.length) {
    const name = block[at + 6] + 1;
    const head = 6 + name + (name % 2);
    if (at + head + 4 > block.length) return block;
    const length = view.getUint32(at + head);
    if (at + head + 4 + length > block.length) return block;
    const end = Math.min(at + head + 4 + length + (length % 2), block.length);
    if (![0x0409, 0x040c].includes(view.getUint16(at + 4))) kept.push(block.subarray(at, end));
    at = end;
  }
  const shorter = joined([...kept, block.subarray(at)]);
  return shorter.length === block.length ? block : shorter;
}
