// The page: chosen pictures, their protection one after the other, comparison and downloads.

import { free, ofDrop, ofInput } from "./files.js";
import { crc32, zip } from "./zip.js";

const STRENGTHS = {
  faint: { budget: 8, psnr: 40 }, standard: { budget: 8, psnr: null }, strong: { budget: 12, psnr: null },
  strongest: { budget: 16, psnr: null },
};
const $ = (id) => document.getElementById(id);
const [strings, about] = await Promise.all(["strings.json", "about.json"].map(async (name) => (await fetch(name)).json()));
const say = (key, values = {}) => strings[key].replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");

/** @type {{path, file, tiles, state, row, result, entry, urls}[]} state: waiting, working, protected, unchanged, refused. */
let pictures = [];
let taken = new Set();
let running = false;
let device = null;

// The worker, which answers each message with one of the same number.

const answers = new Map();
let worker, number = 0;

function hire() {
  worker = new Worker("worker.js", { type: "module" });
  worker.onmessage = ({ data: { id, tile, ...answer } }) => {
    const one = answers.get(id);
    if (tile) return one?.onTile?.();
    answers.delete(id);
    one?.done(answer);
  };
  worker.onerror = (event) => release(event.message || "worker");
}

/** End all waiting tasks with this reason. */
function release(reason) {
  for (const { done } of answers.values()) done({ failed: reason });
  answers.clear();
}

function ask(message, onTile) {
  return new Promise((done) => {
    answers.set(++number, { done, onTile });
    worker.postMessage({ ...message, id: number });
  });
}

async function openNetwork() {
  const { result, failed } = await ask({ task: "open", about });
  if (failed) throw new Error(failed);
  device = result.device;
  const threads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, 8) : 1;
  $("engine").textContent = device === "webgpu" ? say("onGraphics") : say("onProcessor", { threads });
}

// The list.

const reasonOf = ({ refused, failed }) =>
  refused ? say(refused.key, refused.values) : say("failed", { reason: strings[failed] ?? failed });

function show(picture) {
  const { state, row, path, entry, result } = picture;
  row.className = state === "unchanged" ? "refused" : state;
  const texts = {
    waiting: say("waiting"), working: say("working"), stopped: say("stopped"), refused: entry?.reason,
    protected: entry && [say("done", entry), entry.note].filter(Boolean).join("; "), unchanged: entry?.note,
  };
  row.querySelector(".state").textContent = texts[state] ?? "";
  row.querySelector(".compare").hidden = state !== "protected";
  const link = row.querySelector(".download");
  link.hidden = state !== "protected";
  if (result) {
    link.href = picture.urls.after;
    link.download = path.split("/").at(-1);
  }
  refresh();
}

function refresh() {
  const open = pictures.filter(({ state }) => state === "waiting").length;
  $("results").hidden = !pictures.length;
  $("start").disabled = running || !open;
  $("start").textContent = open === 1 ? say("startOne") : open ? say("startCount", { count: open }) : say("start");
  $("stop").hidden = !running;
  $("clear").disabled = running;
  $("all").disabled = running || !pictures.some(({ result }) => result);
}

async function add(found) {
  for (const { path, file } of found) {
    const row = $("row").content.firstElementChild.cloneNode(true);
    const picture = { path: free(path, taken), file, tiles: 1, state: "waiting", row, urls: {} };
    row.querySelector(".name").textContent = picture.path;
    const [compare, download] = [row.querySelector(".compare"), row.querySelector(".download")];
    compare.setAttribute("aria-label", say("compareLabel", { name: picture.path }));
    download.setAttribute("aria-label", say("downloadLabel", { name: picture.path }));
    compare.addEventListener("click", () => compareWith(picture, true));
    $("list").append(row);
    pictures.push(picture);
    show(picture);
    ask({ task: "inspect", file, resolution: about.resolution }).then((answer) => {
      if (answer.result) picture.tiles = answer.result.tiles;
      else if (picture.state === "waiting") refuse(picture, reasonOf(answer));
    });
  }
  if (found.length) $("progress").textContent = say("added", { count: found.length });
}

function refuse(picture, reason) {
  picture.state = "refused";
  picture.entry = { path: picture.path, status: "skipped", reason, recipe: recipe(), version: about.version };
  show(picture);
}

function recipe() {
  const { budget, psnr } = STRENGTHS[$("settings").elements.strength.value];
  return { ...about.recipe, settings: { ...about.recipe.settings, budget }, ...(psnr === null ? {} : { psnr }) };
}

// Protection.

function timeText(seconds) {
  return seconds < 90 ? say("seconds", { count: Math.max(Math.round(seconds), 1) }) : say("minutes", { count: Math.round(seconds / 60) });
}

async function protectAll() {
  running = true;
  refresh();
  const todo = pictures.filter(({ state }) => state === "waiting");
  const used = recipe();
  const settings = { budget: used.settings.budget, psnr: used.psnr ?? null };
  $("bar").hidden = false;
  $("bar").value = 0;
  try {
    if (!device) {
      $("progress").textContent = say("loading");
      await openNetwork();
    }
  } catch (error) {
    $("progress").textContent = say("failedLoading", { reason: error.message });
    running = false;
    refresh();
    return;
  }
  const began = performance.now();
  let tiles = 0, done = 0;
  const tell = () => {
    const left = todo.filter(({ state }) => state === "waiting" || state === "working").reduce((sum, one) => sum + one.tiles, 0);
    const all = tiles + Math.max(left - (todo.find(({ state }) => state === "working")?.passed ?? 0), 0);
    $("bar").value = all ? tiles / all : 0;
    const values = { done, all: todo.length, time: timeText(((performance.now() - began) / 1000 / (tiles || 1)) * (all - tiles)) };
    $("progress").textContent = say(tiles ? "remaining" : "progress", values);
  };
  for (const picture of todo) {
    if (!running) break;
    if (picture.state !== "waiting") continue;
    picture.state = "working";
    picture.passed = 0;
    show(picture);
    tell();
    const answer = await ask({ task: "protect", file: picture.file, settings }, () => {
      tiles++;
      picture.passed++;
      tell();
    });
    if (!running) {
      picture.state = "waiting";
    } else if (answer.result) {
      accept(picture, answer.result, used);
    } else {
      refuse(picture, reasonOf(answer));
    }
    show(picture);
    done++;
  }
  const protectedOnes = todo.filter(({ state }) => state === "protected");
  $("progress").textContent = say("finished", { done: protectedOnes.length, other: todo.length - protectedOnes.length });
  $("bar").hidden = true;
  running = false;
  refresh();
  if (protectedOnes.length && $("comparison").hidden) compareWith(protectedOnes[0], false);
}

function accept(picture, result, used) {
  const note = [result.unchanged && say(result.unchanged), ...result.notes.map((one) => say(one))].filter(Boolean).join("; ") || null;
  picture.entry = {
    path: picture.path, ...result.entry, note, recipe: used,
    computed: { batch_size: 1, device: device === "webgpu" ? "webgpu" : "cpu", dtype: "float32", engine: about.engine },
    against: about.against, version: about.version,
  };
  picture.result = result;
  picture.state = result.entry.status;
  picture.urls = { before: URL.createObjectURL(picture.file), after: URL.createObjectURL(result.blob), change: URL.createObjectURL(result.amplified) };
}

function stop() {
  running = false;
  worker.terminate(); // a task cannot be ended otherwise
  hire();
  device = null;
  release("stopped");
}

function clear() {
  for (const { urls } of pictures) Object.values(urls).forEach((url) => URL.revokeObjectURL(url));
  pictures = [];
  taken = new Set();
  $("list").replaceChildren();
  $("comparison").hidden = true;
  $("progress").textContent = "";
  refresh();
  $("files").focus();
}

// Comparison and downloads.

function compareWith(picture, focus) {
  const { path, urls, entry } = picture;
  for (const [id, url, key] of [["before-picture", urls.before, "beforeAlt"], ["after-picture", urls.after, "afterAlt"], ["change-picture", urls.change, "changeAlt"]]) {
    $(id).src = url;
    $(id).alt = say(key, { name: path });
  }
  $("compared").textContent = `${path}: ${say("done", entry)}`;
  $("comparison").hidden = false;
  if (!focus) return;
  $("comparison-title").focus({ preventScroll: true });
  $("comparison").scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
}

async function downloadAll() {
  const lines = pictures.filter(({ entry }) => entry).map(({ entry }) => `${JSON.stringify(entry)}\n`).join("");
  const manifest = new TextEncoder().encode(lines);
  const entries = pictures.filter(({ result }) => result).map(({ path, result }) => ({ path, blob: result.blob, crc: result.crc }));
  try {
    const whole = zip([...entries, { path: "manifest.jsonl", blob: new Blob([manifest]), crc: crc32([manifest]) }]);
    const url = URL.createObjectURL(whole);
    Object.assign(document.createElement("a"), { href: url, download: "protected.zip" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    $("progress").textContent = say("tooMuch");
  }
}

for (const id of ["files", "folder"]) {
  $(id).addEventListener("change", () => {
    add(ofInput($(id)));
    $(id).value = "";
  });
}
for (const kind of ["dragover", "dragleave", "drop"]) {
  addEventListener(kind, async (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") add(await ofDrop(event.dataTransfer));
  });
}
$("start").addEventListener("click", protectAll);
$("stop").addEventListener("click", stop);
$("clear").addEventListener("click", clear);
$("all").addEventListener("click", downloadAll);
$("slider").addEventListener("input", () => document.querySelector(".stack").style.setProperty("--at", `${$("slider").value}%`));
addEventListener("beforeunload", (event) => {
  if (running) event.preventDefault();
});

/** Keep the page for later, and reload it once so that it may compute in several threads. */
async function settle() {
  if (!isSecureContext || !navigator.serviceWorker) {
    if (!isSecureContext) $("engine").textContent = say("onlyLocal");
    return;
  }
  const service = navigator.serviceWorker;
  const controlled = new Promise((done) => service.addEventListener("controllerchange", done, { once: true }));
  try {
    await service.register("sw.js");
    if (!service.controller) await controlled;
  } catch (error) {
    console.warn(error); // the page works without it, but more slowly, and not without a network
    return;
  }
  if (!self.crossOriginIsolated && !pictures.length && !sessionStorage.getItem("isolated")) {
    sessionStorage.setItem("isolated", "tried");
    location.reload();
  }
}

hire();
$("unready").remove();
refresh();
document.documentElement.dataset.ready = "true";
await settle();
document.documentElement.dataset.settled = "true";
