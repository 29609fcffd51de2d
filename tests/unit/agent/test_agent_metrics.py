"""The metrics' text, read by Prometheus' own parser."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from edge_agent.metrics import Metric, exposition


def test_prometheus_reads_what_is_written() -> None:
    hostile = 'a "quoted" \\ name\nwith a line'
    text = exposition(
        [
            Metric("predictions_total", "Rows.", 7, {"release": "a"}),
            Metric("predictions_total", "Rows.", 8, {"release": hostile}),
            Metric("outbox_bytes", "Their size.\nReally.", 1.5),
        ]
    ).decode()
    predictions, outbox = text_string_to_metric_families(text)
    assert (predictions.name, predictions.type) == ("edge_agent_predictions", "counter")
    assert [(sample.labels, sample.value) for sample in predictions.samples] == [
        ({"release": "a"}, 7.0),
        ({"release": hostile}, 8.0),
    ]
    assert (outbox.name, outbox.type, outbox.documentation) == (
        "edge_agent_outbox_bytes",
        "gauge",
        "Their size.\nReally.",
    )
    assert [(sample.labels, sample.value) for sample in outbox.samples] == [({}, 1.5)]
