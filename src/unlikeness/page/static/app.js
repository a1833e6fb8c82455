// The page: chosen pictures, their protection one after the other, comparison and downloads.

import { ask, dismiss } from "./client.js";
import { free, ofDrop, ofInput } from "./files.js";
import { crc32, zip } from "./zip.js";

const STRENGTHS = {
  faint: { budget: 8, psnr: 40 }, standard: { budget: 8, psnr: null }, strong: { budget: 12, psnr: null },
  strongest: { budget: 16, psnr: null },
};
const chosen = () => $("settings").elements.strength.value;
const $ = (id) => document.getElementById(id);
const load = async (name) => (await fetch(name)).json();
const [strings, about] = await Promise.all([load("strings.json"), load("about.json")]);
const say = (key, values = {}) => strings[key].replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");

/** {path, file, tiles, row, state, strength, result, entry, urls}: see `add` and `accept`. */
let pictures = [];
let taken = new Set();
let running = false;
let device = null; // that computes, once the network is open
let compared = null; // the picture that is shown below the list

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

const doneText = ({ psnr, linf, lossless }) =>
  say(lossless ? "done" : "doneLossy", { psnr: psnr?.toFixed(1), linf: Number(linf.toFixed(1)) });

function show(picture) {
  const { state, row, path, entry, result } = picture;
  row.className = state === "unchanged" ? "refused" : state;
  const texts = {
    waiting: say("waiting"), working: say("working"), refused: entry?.reason,
    protected: result && [doneText(entry), entry.note].filter(Boolean).join("; "), unchanged: entry?.note,
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

/** Whether a picture waits, or was protected at another strength. */
const due = ({ state, strength }) =>
  state === "waiting" || (["protected", "unchanged"].includes(state) && strength !== chosen());

function refresh() {
  const open = pictures.filter(due).length;
  $("results").hidden = !pictures.length;
  $("start").disabled = running || !open;
  if (!running) $("start").textContent = say(["start", "startOne"][open] ?? "startCount", { count: open });
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
      else if (answer.refused && picture.state === "waiting") refuse(picture, reasonOf(answer));
    });
  }
  if (found.length) $("progress").textContent = say("added", { count: found.length });
}

function refuse(picture, reason) {
  forget(picture);
  picture.state = "refused";
  picture.entry = { path: picture.path, status: "skipped", reason, recipe: recipe(), version: about.version };
  show(picture);
}

function recipe() {
  const { budget, psnr } = STRENGTHS[chosen()];
  return { ...about.recipe, settings: { ...about.recipe.settings, budget }, ...(psnr === null ? {} : { psnr }) };
}

// Protection.

function timeText(seconds) {
  if (seconds >= 90) return say("minutes", { count: Math.round(seconds / 60) });
  return say("seconds", { count: Math.max(Math.round(seconds), 1) });
}

async function protectAll() {
  const todo = pictures.filter(due);
  running = true;
  $("settings").firstElementChild.disabled = true;
  $("bar").hidden = false;
  $("bar").value = 0;
  refresh();
  $("stop").focus({ preventScroll: true }); // the pressed button is disabled now
  try {
    if (!device) {
      $("progress").textContent = say("loading");
      await openNetwork();
    }
    await protectEach(todo);
    const made = todo.filter(({ state }) => state === "protected").length;
    $("progress").textContent = say("finished", { done: made, other: todo.length - made });
  } catch (error) {
    $("progress").textContent = running ? say("failedLoading", { reason: error.message }) : say("stopped");
  }
  running = false;
  $("settings").firstElementChild.disabled = false;
  $("bar").hidden = true;
  const focused = document.activeElement === $("stop");
  refresh();
  if (focused) ($("all").disabled ? $("start") : $("all")).focus({ preventScroll: true });
  const first = compared?.result ? compared : pictures.find(({ result }) => result);
  if (first) compareWith(first, false);
}

async function protectEach(todo) {
  const strength = chosen();
  const used = recipe();
  const settings = { budget: used.settings.budget, psnr: used.psnr ?? null };
  const began = performance.now();
  let tiles = 0, done = 0, told = 0;
  let passed = 0; // tiles of the picture at work
  const tell = (always) => {
    const all = tiles + todo.slice(done).reduce((sum, one) => sum + one.tiles, 0) - passed;
    $("bar").value = tiles / Math.max(all, 1);
    if (!always && performance.now() - told < 3000) return; // a screen reader reads each text
    told = performance.now();
    const time = timeText(((told - began) / 1000 / Math.max(tiles, 1)) * (all - tiles));
    $("progress").textContent = say(tiles ? "remaining" : "progress", { done, all: todo.length, time });
  };
  for (const picture of todo) {
    if (!running) break;
    if (picture.state !== "refused") { // since the button was pressed
      picture.state = "working";
      show(picture);
      tell(true);
      const answer = await ask({ task: "protect", file: picture.file, settings }, () => {
        tiles++;
        passed++;
        tell(false);
      });
      if (!running) picture.state = picture.entry?.status ?? "waiting";
      else if (answer.result) accept(picture, answer.result, used, strength);
      else refuse(picture, reasonOf(answer));
      show(picture);
    }
    passed = 0;
    done++;
  }
}

function accept(picture, result, used, strength) {
  forget(picture);
  const notes = [result.unchanged, ...result.notes].filter(Boolean).map((one) => say(one));
  picture.entry = {
    path: picture.path, ...result.entry, note: notes.join("; ") || null, recipe: used,
    computed: { batch_size: 1, device: device === "webgpu" ? "webgpu" : "cpu", dtype: "float32", engine: about.engine },
    against: about.against, version: about.version,
  };
  Object.assign(picture, { result, strength });
  picture.state = result.entry.status;
  const blobs = { before: picture.file, after: result.blob, change: result.amplified };
  picture.urls = Object.fromEntries(Object.entries(blobs).map(([name, blob]) => [name, URL.createObjectURL(blob)]));
}

/** Release what was made of a picture. */
function forget(picture) {
  Object.values(picture.urls).forEach((url) => URL.revokeObjectURL(url));
  Object.assign(picture, { urls: {}, result: null, entry: null, strength: null });
}

function stop() {
  running = false;
  device = null;
  dismiss();
}

function clear() {
  pictures.forEach(forget);
  pictures = [];
  taken = new Set();
  compared = null;
  $("list").replaceChildren();
  $("comparison").hidden = true;
  $("progress").textContent = "";
  refresh();
  $("files").focus();
}

// Comparison and downloads.

function compareWith(picture, focus) {
  const { path, urls, entry } = picture;
  compared = picture;
  for (const name of ["before", "after", "change"]) {
    $(`${name}-picture`).src = urls[name];
    $(`${name}-picture`).alt = say(`${name}Alt`, { name: path });
  }
  $("compared").textContent = `${path}: ${doneText(entry)}`;
  $("comparison").hidden = false;
  if (!focus) return;
  $("comparison-title").focus({ preventScroll: true });
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  $("comparison").scrollIntoView({ behavior: still ? "auto" : "smooth" });
}

async function downloadAll() {
  const lines = pictures.filter(({ entry }) => entry).map(({ entry }) => `${JSON.stringify(entry)}\n`).join("");
  const manifest = new TextEncoder().encode(lines);
  const made = pictures.filter(({ result }) => result);
  const entries = made.map(({ path, result }) => ({ path, blob: result.blob, crc: result.crc }));
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
$("slider").addEventListener("input", () => $("stack").style.setProperty("--at", `${$("slider").value}%`));
$("settings").addEventListener("change", refresh);
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

$("unready").remove();
refresh();
document.documentElement.dataset.ready = "true";
await settle();
document.documentElement.dataset.settled = "true";
