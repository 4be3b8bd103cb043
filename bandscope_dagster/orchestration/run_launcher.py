"""Starts runs as Dagster's default launcher does, but never gives up a process that is slow to start.

The daemon asks the code server to start a run, and waits 60 s for the answer, which comes when the new process has
imported Dagster. On a busy machine that takes longer. Dagster then marks the run as failed, and its process ends when
it goes on. Here such a run stays "starting"; ``dead_runs.py`` ends it if its process dies.
"""

from typing import Any

import dagster as dg
import grpc

from bandscope_dagster.orchestration.private_api import DagsterUserCodeUnreachableError, DefaultRunLauncher


class PatientRunLauncher(DefaultRunLauncher):
    """``DefaultRunLauncher`` for processes that may take minutes to start."""

    def launch_run(self, context: Any) -> None:
        """Ask the code server to start a run; without an answer in time, leave the run in state "starting"."""
        try:
            super().launch_run(context)
        except DagsterUserCodeUnreachableError as error:
            call = error.__cause__
            if not isinstance(call, grpc.Call) or call.code() != grpc.StatusCode.DEADLINE_EXCEEDED:
                raise
            run: dg.DagsterRun = context.dagster_run
            self._instance.report_engine_event(
                "The process of this run is slow to start; the run goes on when it has started.", run
            )
