"""What the service counts, in the text format of Prometheus. Nothing of a picture is among it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping

__all__ = ["Metrics"]

_KNOWN = ("/v1/protect", "/v1/measure", "/healthz", "/metrics")


class Metrics:
    """Counts of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: Counter[tuple[str, int]] = Counter()
        self._bytes: Counter[str] = Counter()
        self._seconds: dict[str, float] = {}

    def seen(self, path: str, status: int, seconds: float) -> None:
        """Count an answer. Paths of the page count as one; status 0: the client went away."""
        path = "/v1/jobs" if path.startswith("/v1/jobs") else path if path in _KNOWN else "other"
        with self._lock:
            self._answers[path, status] += 1
            self._seconds[path] = self._seconds.get(path, 0.0) + seconds

    def moved(self, received: int, sent: int) -> None:
        """Count the bytes of a protected picture."""
        with self._lock:
            self._bytes["received"] += received
            self._bytes["sent"] += sent

    def text(self, places: int, most: int, jobs: Mapping[str, int]) -> str:
        """All counts, with the places that are taken now and how many there are. jobs: status -> number."""
        with self._lock:
            answers = [
                f'unlikeness_requests_total{{path="{path}",status="{status}"}} {count}'
                for (path, status), count in sorted(self._answers.items())
            ]
            seconds = [
                f'unlikeness_request_seconds_total{{path="{path}"}} {total:.6f}'
                for path, total in sorted(self._seconds.items())
            ]
            moved = [
                f'unlikeness_picture_bytes_total{{direction="{way}"}} {self._bytes[way]}'
                for way in ("received", "sent")
            ]
        waiting = [f'unlikeness_jobs{{status="{status}"}} {count}' for status, count in jobs.items()]
        found: list[str] = []
        for name, kind, said, lines in (
            ("unlikeness_requests_total", "counter", "Answers by path and status.", answers),
            ("unlikeness_request_seconds_total", "counter", "Seconds from request to answer.", seconds),
            ("unlikeness_picture_bytes_total", "counter", "Bytes of protected pictures.", moved),
            ("unlikeness_places", "gauge", "Requests with a picture.", [f"unlikeness_places {places}"]),
            ("unlikeness_places_most", "gauge", "Their bound.", [f"unlikeness_places_most {most}"]),
            ("unlikeness_jobs", "gauge", "Jobs by status.", waiting),
        ):
            found += [f"# HELP {name} {said}", f"# TYPE {name} {kind}", *lines]
        return "\n".join(found) + "\n"
