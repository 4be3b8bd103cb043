"""A Dagster instance for several runs in threads of one process."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import dagster as dg

from bandscope_dagster.orchestration.home import open_records
from bandscope_dagster.orchestration.private_api import ConfigurableClassData

NO_LOGS: Final = ConfigurableClassData(
    "dagster._core.storage.noop_compute_log_manager", "NoOpComputeLogManager", "{}\n"
)


@contextmanager
def threaded_instance() -> Generator[dg.DagsterInstance]:
    """The instance of ``DAGSTER_HOME``, without what Dagster replaces in the whole process when a run begins.

    It stores the standard output and error of a run by replacing these descriptors: with several runs, one would get
    the output of another. And it configures Python's logging, which takes the lock of every handler: with a run that
    writes a record at this moment, both would wait for ever. So handlers in ``dagster.yaml`` (``python_logs``) get
    nothing. What steps log through their context is recorded as always.
    """
    with open_records() as home:
        ref = home.get_ref()._replace(compute_logs_data=NO_LOGS)
    with dg.DagsterInstance.from_ref(ref) as instance:
        instance.get_yaml_python_handlers = list
        yield instance
