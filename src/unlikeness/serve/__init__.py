"""The local service: the page for browsers, and an HTTP interface to `protect`. See docs/guides/serve.md."""
