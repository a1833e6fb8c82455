// The pictures that a person chose or dropped, with their places in the folder.

const PICTURES = /\.(jpe?g|jpe|jfif|png|webp|hei[cf]|avif|tiff?|bmp|gif|jxl|psd|dng|nef|cr[23]|arw|orf|rw2|raf)$/i;

/** {path, file} of an input's files. Of a folder, only what its name calls a picture. */
export function ofInput(input) {
  const found = Array.from(input.files, (file) => ({ path: file.webkitRelativePath || file.name, file }));
  return input.webkitdirectory ? found.filter(({ path }) => PICTURES.test(path)) : found;
}

/** The same of what was dropped: files as they are, and folders with all their subfolders. */
export async function ofDrop(transfer) {
  const entries = Array.from(transfer.items, (item) => item.webkitGetAsEntry?.() ?? item.getAsFile()).filter(Boolean);
  const found = [];
  for (const entry of entries) await collect(entry, found, true);
  return found;
}

async function collect(entry, found, direct) {
  if (entry instanceof File) {
    found.push({ path: entry.name, file: entry });
  } else if (entry.isFile) {
    if (direct || PICTURES.test(entry.name)) {
      const file = await new Promise((done, failed) => entry.file(done, failed));
      found.push({ path: entry.fullPath.replace(/^\//, ""), file });
    }
  } else {
    const reader = entry.createReader();
    for (;;) { // a reader gives some entries at a time
      const some = await new Promise((done, failed) => reader.readEntries(done, failed));
      if (!some.length) break;
      for (const one of some) await collect(one, found, false);
    }
  }
}

/** `path`, or with a number where another picture of the list has this name, in any case. */
export function free(path, taken) {
  const dot = path.lastIndexOf(".") > path.lastIndexOf("/") ? path.lastIndexOf(".") : path.length;
  for (let number = 1, name = path; ; name = `${path.slice(0, dot)} (${++number})${path.slice(dot)}`) {
    if (!taken.has(name.toLowerCase())) {
      taken.add(name.toLowerCase());
      return name;
    }
  }
}
