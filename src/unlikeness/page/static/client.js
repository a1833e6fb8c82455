// The page's side of the worker, which answers each message with one of the same number.

const answers = new Map();
let worker = null;
let number = 0;

function hire() {
  worker = new Worker("worker.js", { type: "module" });
  worker.onmessage = ({ data: { id, tile, ...answer } }) => {
    const one = answers.get(id);
    if (tile) return one?.onTile?.();
    answers.delete(id);
    one?.done(answer);
  };
  worker.onerror = (event) => release(event.message || "worker.js");
}

/** End all waiting tasks with this reason. */
function release(reason) {
  for (const { done } of answers.values()) done({ failed: reason });
  answers.clear();
}

/** A promise of the worker's answer, {result}, {refused} or {failed}; onTile: called when a tile is done. */
export function ask(message, onTile) {
  if (!worker) hire();
  return new Promise((done) => {
    answers.set(++number, { done, onTile });
    worker.postMessage({ ...message, id: number });
  });
}

/** End the worker and all its tasks, which cannot be ended otherwise. The next task gets a new one. */
export function dismiss() {
  worker?.terminate();
  worker = null;
  release("stopped");
}
