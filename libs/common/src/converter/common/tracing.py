"""One trace follows a job through HTTP, NATS and the stages (OpenTelemetry; W3C trace context in message headers).

Spans are recorded and sent when `OTEL_EXPORTER_OTLP_ENDPOINT` names a collector; the SDK's other `OTEL_*` variables
hold too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import context, trace
from opentelemetry.trace import Span, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

SEND_TIMEOUT_S = 3
"""How long a collector may take; a service that stops waits no longer for one that is away."""

PARENT = "traceparent"
"""All that is taken from who calls. `tracestate` and `baggage` hold up to 24 KiB of the caller's own words, which would
be kept with every event of a job, shown to its subscribers and sent on to the file store."""

_tracer: trace.Tracer | None = None
"""None while no collector is named: spans that go nowhere would cost each message of a stage 12 µs."""
_propagator = TraceContextTextMapPropagator()


@contextmanager
def exported(service: str, collector: str) -> Iterator[None]:
    """Send the spans of this process to `collector` (OTLP over HTTP, its base address) while the context is open."""
    global _tracer  # noqa: PLW0603 - the one of this process
    if not collector:
        yield
        return
    # Only who sends spans pays for importing the SDK.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - see above
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - see above
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - see above
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - see above

    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    exporter = OTLPSpanExporter(f"{collector.rstrip('/')}/v1/traces", timeout=SEND_TIMEOUT_S)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    _tracer = provider.get_tracer("converter")
    try:
        yield
    finally:
        _tracer = None
        provider.shutdown()


@contextmanager
def span(name: str, kind: SpanKind = SpanKind.INTERNAL, **attributes: str | int) -> Iterator[Span]:
    """A part of what the current span does. An exception that leaves it is recorded."""
    if _tracer is None:
        yield trace.get_current_span()
        return
    with _tracer.start_as_current_span(name, kind=kind, attributes=attributes) as begun:
        yield begun


@contextmanager
def received(headers: Mapping[str, str], name: str, kind: SpanKind, **attributes: str | int) -> Iterator[Span]:
    """A span for what came with `headers`, in the trace that they name if they name one."""
    named = {PARENT: headers[PARENT]} if PARENT in headers else {}
    if not named and _tracer is None:
        yield trace.INVALID_SPAN
        return
    token = context.attach(_propagator.extract(named))
    try:
        with span(name, kind, **attributes) as begun:
            yield begun
    finally:
        context.detach(token)


def carried() -> dict[str, str]:
    """The headers that take the current trace along."""
    headers: dict[str, str] = {}
    _propagator.inject(headers)
    return headers


def trace_id() -> str | None:
    """The current trace, as logs name it."""
    found = trace.get_current_span().get_span_context()
    return format(found.trace_id, "032x") if found.is_valid else None
