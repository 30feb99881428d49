"""The HTTP server that Prometheus scrapes: the same one for the controller and for every agent."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress

from prometheus_client import CollectorRegistry, Counter, make_wsgi_app

from wire.families import Family
from wire.roles import METRICS_READERS
from wire.security import Tls
from wire.web import REASONS, WebServer

log = logging.getLogger(__name__)

REFUSALS = Family(
    "prbandit_metrics_page_refused_total",
    "counter",
    "Requests of the metrics page refused, by reason",
    ("why",),
)
REFUSED = Counter(REFUSALS.name, REFUSALS.text, REFUSALS.labels, registry=None)
"""Of all metrics pages of this process; each of them shows it."""
for _reason in REASONS:
    REFUSED.labels(_reason)


class _Refusals:
    """Counts, and logs every power of two."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._counts = dict.fromkeys(REASONS, 0)

    def __call__(self, why: str, text: str) -> None:
        REFUSED.labels(why).inc()
        with self._mutex:
            self._counts[why] += 1
            count = self._counts[why]
        if count & (count - 1) == 0:
            log.warning("metrics page: %s (%s: %d)", text, why, count)


class MetricsServer(WebServer):
    """Serves ``registry`` on ``address`` at ``/metrics`` until :meth:`close`: a
    :class:`wire.web.WebServer`, whose errors are its own, for the roles of
    :data:`wire.roles.METRICS_READERS`.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        address: str,
        tls: Tls | None,
        *,
        setting: str = "--metrics",
        missing: str = "--keys",
    ) -> None:
        with suppress(ValueError):  # another page shows this registry already
            registry.register(REFUSED)
        super().__init__(
            "metrics",
            make_wsgi_app(registry),
            address,
            tls,
            readers=METRICS_READERS,
            refused=_Refusals(),
            setting=setting,
            missing=missing,
        )
