"""The test files that take half a minute or more."""

SLOW_FILES = (
    "test_local_stack",
    "test_ray",
    "test_kills",
    "test_orchestration_jobs",
    "test_trust",
    "test_clock",
    "test_crash",
    "test_orchestration_new_uploads",
    "test_ui",
    "test_docs_commands",
    "test_catalogs_readers",
    "test_two_runs",
    "test_late_jobs",
    "test_deploy",
    "test_kubernetes_steps",
    "test_home_of_version_0_1",
    "test_catalogs_refresh",
    "test_orchestration_refresh_catalogs",
    "test_definitions",
    "test_faults",
    "test_audio_cage",
    "test_audio_decode",
    "test_cli_export",
    "test_orchestration_song_events",
)
"""In the order in which they start: before all others, the longest first. Else the other processes of pytest-xdist
would wait at the end for one of them. ``pytest -m "not slow"`` leaves them out."""
