"""The sensor ``send_results``: posts the result of every song to the webhook of the settings."""

from typing import Final

import dagster as dg

from bandscope_dagster.orchestration.result_webhook import Receiver, ResultSender
from bandscope_dagster.orchestration.sensors.intervals import interval_for
from bandscope_dagster.settings import Settings
from bandscope_dagster.storage.objects.protocol import ObjectStore

EVERY_S: Final = 5  # between ticks
SENDING_S: Final = 20.0  # a tick ends after 60 s by default; the last post may take TIMEOUT_S more


def results_sensor(receiver: Receiver, settings: Settings) -> dg.SensorDefinition:
    """The sensor that posts results to ``receiver``, whoever ran the songs."""

    @dg.sensor(
        name="send_results",
        minimum_interval_seconds=interval_for(EVERY_S),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Posts the result of every song to BANDSCOPE_RESULT_WEBHOOK, at least once, and again after growing waits"
            " if the receiver does not take it."
        ),
    )
    def send_results(
        context: dg.SensorEvaluationContext, store: dg.ResourceParam[ObjectStore]
    ) -> dg.SkipReason:
        sent = ResultSender(receiver, context.instance, store, settings).send(SENDING_S)
        if sent is None:
            return dg.SkipReason("Another process sends the results now.")
        for line in sent.lost:
            context.log.error(line)
        return dg.SkipReason(sent.text)

    return send_results
