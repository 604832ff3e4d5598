"""What a caller may say of the trace that its request belongs to."""

from __future__ import annotations

from opentelemetry.trace import SpanKind

from converter.common import tracing

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_of_what_a_caller_sends_only_the_place_in_its_trace_is_taken_along() -> None:
    sent = {"traceparent": PARENT, "tracestate": "vendor=" + "v" * 200, "baggage": "password=hunter2"}

    with tracing.received(sent, "request", SpanKind.SERVER):
        assert tracing.carried() == {"traceparent": PARENT}


def test_who_names_no_trace_and_records_none_takes_nothing_along() -> None:
    with tracing.received({"baggage": "password=hunter2"}, "request", SpanKind.SERVER):
        assert tracing.carried() == {}
