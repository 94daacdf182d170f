"""What a server counts about itself, for Prometheus: no ids of people or items among it."""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from time import perf_counter, time
from typing import Any

import orjson
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.snapshot import Snapshot

_log = logging.getLogger("recsys.requests")

SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

METHODS = frozenset({"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"})
"""What a client may make up is not remembered."""

SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""Names the folder in which the workers of a server count together; read when prometheus_client is imported."""

FAILED = "something went wrong here; the log has it under this answer's x-request-id"

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("recsys_requests", "Requests by route and status", ["method", "route", "status"], registry=self.registry)
        self.seconds = Histogram(
            "recsys_request_seconds", "Seconds to answer, by route", ["method", "route"], buckets=SECONDS, registry=self.registry
        )
        self.stages = Histogram(
            "recsys_stage_seconds", "Seconds of a recommendation's parts", ["stage"], buckets=SECONDS, registry=self.registry
        )
        self.events = Counter("recsys_events", "Events taken in, by type; repeats as duplicate", ["event_type"], registry=self.registry)
        self.degraded = Counter("recsys_degraded_answers", "Recommendations without the profile", registry=self.registry)
        self.sources = Counter("recsys_recommended_items", "Recommended items by who spoke for them", ["source"], registry=self.registry)
        shares = tuple(n / 10 for n in range(11))
        self.overlap = Histogram(
            "recsys_shadow_overlap",
            "Share of a list that a release on trial as a shadow would show too",
            buckets=shares,
            registry=self.registry,
        )
        self.outcomes = Counter(
            "recsys_outcomes",
            "What measured people went on to, by whether it was in the list they had been shown",
            ["variant", "release", "outcome"],
            registry=self.registry,
        )
        self._children: dict[tuple[Any, ...], Any] = {}

    def child(self, of: Any, *labels: Any) -> Any:
        """Return the child of a metric with some labels: `labels` alone takes longer than to count."""
        key = (id(of), *labels)
        if key not in self._children:
            self._children[key] = of.labels(*labels)
        return self._children[key]

    def stage(self, name: str) -> "_Stage":
        """Time a part of a recommendation."""
        return _Stage(self.child(self.stages, name))

    def event(self, event_type: str) -> None:
        """Count an event that was taken in."""
        self.child(self.events, event_type).inc()

    def items_from(self, items: Iterable[Mapping[str, Any]]) -> None:
        """Count recommended items by who spoke for them."""
        sources = [item["source"] for item in items]
        for source in set(sources):
            self.child(self.sources, source).inc(sources.count(source))

    def page(self, snapshot: Snapshot | None, waiting: int | None) -> bytes:
        """Write everything the way Prometheus reads it: what all workers of this server counted, and how things stand now.

        waiting: None where Redis did not say.
        """
        registry = self.registry
        if SHARED in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)
        return generate_latest(registry) + generate_latest(_Now(snapshot, waiting))


class _Stage:
    """A part that is timed: a class, for this runs in every request."""

    __slots__ = ("began", "times")

    def __init__(self, times: Any):
        self.times = times

    def __enter__(self) -> None:
        self.began = perf_counter()

    def __exit__(self, *_: object) -> None:
        self.times.observe(perf_counter() - self.began)


class _Now:
    """How things stand: the same in every worker, so nothing is counted."""

    def __init__(self, snapshot: Snapshot | None, waiting: int | None):
        self.snapshot, self.waiting = snapshot, waiting

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Give each gauge."""
        snapshot = self.snapshot
        release = GaugeMetricFamily("recsys_release", "1 for the release that answers", labels=["release"])
        items = GaugeMetricFamily("recsys_items", "Items that can be recommended, by where they come from", labels=["state"])
        recall = GaugeMetricFamily("recsys_index_recall", "recall@100 of the live index when it was built")
        learned = GaugeMetricFamily("recsys_newest_event_age_seconds", "Age of the newest event the live release learned")
        if snapshot is not None:
            release.add_metric([snapshot.id], 1)
            withdrawn = int(snapshot.withdrawn.sum())
            items.add_metric(["released"], len(snapshot.vocab.base) - 1)
            items.add_metric(["new"], len(snapshot.vocab.more))
            items.add_metric(["withdrawn"], withdrawn)
            recall.add_metric([], snapshot.index.recall)
            learned.add_metric([], max(0.0, time() - snapshot.now / 1000))
        waiting = float("nan") if self.waiting is None else self.waiting
        yield from (release, items, recall, learned)
        yield GaugeMetricFamily("recsys_events_waiting", "Events in the streams that are not archived yet", value=waiting)


class Measured:
    """Names every request to `app`, counts and times it by the route that answered it and, if asked to, writes a line about it."""

    def __init__(self, app: ASGIApp, metrics: Metrics, access_log: bool = False):
        self.app, self.metrics, self.access_log = app, metrics, access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status, started, id = perf_counter(), 500, False, os.urandom(16).hex()
        scope["request_id"] = id

        async def noted(message: Message) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                status, started = message["status"], True
                message["headers"] = [*message["headers"], (b"x-request-id", id.encode())]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except Exception:
            _log.exception("a request failed", extra={"request_id": id, "method": scope["method"]})
            if not started:
                await noted({"type": "http.response.start", "status": 500, "headers": [(b"content-type", b"application/json")]})
                await send({"type": "http.response.body", "body": orjson.dumps({"detail": FAILED})})
        finally:
            route = getattr(scope.get("route"), "path", "none")  # never the address itself: it may hold somebody's id
            method = scope["method"] if scope["method"] in METHODS else "other"
            self.metrics.child(self.metrics.requests, method, route, status).inc()
            seconds = perf_counter() - began
            self.metrics.child(self.metrics.seconds, method, route).observe(seconds)
            if self.access_log:
                told = {"request_id": id, "method": method, "route": route, "status": status, "ms": round(seconds * 1000, 2)}
                _log.info("%s %s %s in %s ms, %s", method, route, status, told["ms"], id, extra=told)
