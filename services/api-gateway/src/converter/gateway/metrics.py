"""What the gateway counts besides what every service does (`converter.common.metrics`): see docs/operating.md.

`internal.metrics` is the page that shows them, the queues among them.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

REQUEST_SECONDS = Histogram(
    "converter_http_request_seconds",
    "How long requests took, by the path's template.",
    ["method", "route", "status"],
    buckets=(0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 60, 300),
)
REFUSALS = Counter("converter_refusals", "Requests that were answered with an error, by its code.", ["code"])
UPLOADED_BYTES = Counter("converter_upload_bytes", "Bytes of request bodies that were read.")
TOKENS = Counter("converter_token_verifications", "Bearer tokens, by how their signature was known.", ["source"])
STREAMS_OPEN = Gauge("converter_event_streams_open", "Clients that follow a job's events.")
