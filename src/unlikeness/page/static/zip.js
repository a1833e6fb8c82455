// A ZIP file of stored entries (PKWARE, APPNOTE 6.3), made of Blobs without holding their bytes.

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
  return n;
});

/** The checksum of PNG and ZIP over several arrays of bytes. */
export function crc32(parts) {
  let crc = ~0;
  for (const bytes of parts) for (let i = 0; i < bytes.length; i++) crc = (crc >>> 8) ^ TABLE[(crc ^ bytes[i]) & 255];
  return ~crc >>> 0;
}

const LARGEST = 0xffffffff; // bytes; more needs ZIP64, which some programs cannot open

/** entries: [{path, blob, crc}]. RangeError for more than 4 GiB or 65,535 entries. */
export function zip(entries) {
  const parts = [], directory = [];
  let at = 0, size = 0;
  for (const { path, blob, crc } of entries) {
    const name = new TextEncoder().encode(path);
    const common = new DataView(new ArrayBuffer(26));
    common.setUint16(0, 20, true); // version needed
    common.setUint16(2, 0x0800, true); // names are UTF-8
    common.setUint16(8, 0x21, true); // 1 January 1980: no time is told
    common.setUint32(10, crc, true);
    common.setUint32(14, blob.size, true);
    common.setUint32(18, blob.size, true);
    common.setUint16(22, name.length, true);
    const entry = new DataView(new ArrayBuffer(46));
    entry.setUint32(0, 0x02014b50, true);
    entry.setUint16(4, 20, true);
    new Uint8Array(entry.buffer).set(new Uint8Array(common.buffer), 6);
    entry.setUint32(42, at, true);
    directory.push(entry, name);
    size += 46 + name.length;
    parts.push(Uint8Array.of(0x50, 0x4b, 3, 4), common, name, blob);
    at += 30 + name.length + blob.size;
  }
  if (at + size > LARGEST || entries.length > 0xffff) throw new RangeError("zip");
  const end = new DataView(new ArrayBuffer(22));
  end.setUint32(0, 0x06054b50, true);
  end.setUint16(8, entries.length, true);
  end.setUint16(10, entries.length, true);
  end.setUint32(12, size, true);
  end.setUint32(16, at, true);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}
