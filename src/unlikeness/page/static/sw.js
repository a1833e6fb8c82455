// Keeps the page for use without a network, and isolates it, so that the network may compute in several threads.
//
// VERSION changes with every file of the page. A new version replaces the old one when no window shows the page, so that
// files of two versions never meet. Only requests for the page's own files are answered.

const PLACE = `unlikeness ${new URL(registration.scope).pathname} `;
const VERSION = `${PLACE}{{version}}`;
const CORE = ["./", "index.html", "files.json", "{{core}}"];
const ISOLATION = {
  "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin", "Content-Security-Policy": "{{policy}}",
};

addEventListener("install", (event) => {
  event.waitUntil((async () => {
    const cache = await caches.open(VERSION);
    await cache.addAll(CORE.map((one) => new Request(one, { cache: "reload" })));
  })());
});

addEventListener("activate", (event) => {
  event.waitUntil((async () => {
    for (const name of await caches.keys()) {
      if (name.startsWith(PLACE) && name !== VERSION) await caches.delete(name);
    }
    await clients.claim();
  })());
});

addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method !== "GET" || !request.url.startsWith(registration.scope)) return;
  event.respondWith((async () => {
    const cache = await caches.open(VERSION);
    let answer = await cache.match(request, { ignoreSearch: true });
    if (!answer) {
      answer = await fetch(request);
      if (answer.ok) await cache.put(request, answer.clone());
    }
    const headers = new Headers(answer.headers);
    for (const [name, value] of Object.entries(ISOLATION)) headers.set(name, value);
    return new Response(answer.body, { status: answer.status, statusText: answer.statusText, headers });
  })());
});
