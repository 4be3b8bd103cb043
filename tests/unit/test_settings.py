"""Settings: every variable, the errors for invalid values, secrets in no text, and Dagster's home."""

import os
from pathlib import Path

import pytest

from bandscope_dagster.audio.limits import Limits
from bandscope_dagster.errors import SettingsError
from bandscope_dagster.orchestration.home import DAGSTER_YAML, dagster_home
from bandscope_dagster.settings import PREFIX, Settings, load_settings, unknown_variables
from bandscope_dagster.tagging.options import ServerOptions

SECRET = "hunter2-do-not-print"

# variable → (text in the environment, value in the program); no value is the default
USED = {
    "STORAGE": ("s3://music/prefix", "s3://music/prefix"),
    "S3_ENDPOINT": ("http://localhost:8333", "http://localhost:8333"),
    "S3_REGION": ("eu-central-1", "eu-central-1"),
    "S3_ACCESS_KEY_ID": ("key", "key"),
    "S3_VIRTUAL_HOST": ("true", True),
    "SEPARATOR": ("htdemucs", "htdemucs"),
    "TAGGER": ("ast", "ast"),
    "DEVICE": ("cuda:1", "cuda:1"),
    "EXECUTOR": ("ray", "ray"),
    "GPUS": ("2", 2),
    "MODELS_FOLDER": ("/models", "/models"),
    "SHIFTS": ("0", 0),
    "OVERLAP": ("0.5", 0.5),
    "SEGMENT_S": ("4", 4.0),
    "PRECISION": ("bf16", "bf16"),
    "BATCH": ("4", 4),
    "STEMS": ("vocals", "vocals"),
    "ONEDNN": ("off", "off"),
    "TAG_WINDOW_S": ("20", 20.0),
    "TAG_HOP_S": ("2.5", 2.5),
    "TAG_BATCH": ("16", 16),
    "TAG_MODE": ("layers", "layers"),
    "TAGGER_MODEL": ("my-qwen", "my-qwen"),
    "TAGGER_REVISION": ("26291f79", "26291f79"),
    "TAGGER_REQUESTS": ("16", 16),
    "TAGGER_TIMEOUT_S": ("60", 60.0),
    "SONGS_PER_RUN": ("16", 16),
    "STEP_RETRIES": ("0", 0),
    "STEP_RETRY_DELAY_S": ("0.5", 0.5),
    "FLAC_BITS": ("24", 24),
    "PRESENT_FROM": ("0.5", 0.5),
    "AUDIBLE_DB": ("-30", -30.0),
    "HISTORY_DAYS": ("7", 7),
    "UI_URL": ("https://dagster.example.org", "https://dagster.example.org"),
    "MAX_UPLOAD_BYTES": ("1000", 1000),
    "MIN_DURATION_S": ("1.5", 1.5),
    "MAX_DURATION_S": ("600", 600.0),
    "MAX_SAMPLE_RATE": ("96000", 96_000),
    "MAX_CHANNELS": ("2", 2),
    "MAX_TAG_BYTES": ("4096", 4096),
    "MAX_PICTURE_BYTES": ("1000000", 1_000_000),
    "MAX_DECODE_MEMORY_MB": ("256", 256),
    "MAX_DECODE_CPU_S": ("60", 60),
    "MAX_DECODE_SILENCE_S": ("2.5", 2.5),
    "SETTLE_S": ("0.5", 0.5),
    "WATCH_EVERY_S": ("2.5", 2.5),
    "SENSOR_EVERY_S": ("30", 30),
}

SECRETS = {
    *("S3_SECRET_ACCESS_KEY", "ALERT_WEBHOOK", "RESULT_WEBHOOK", "RESULT_WEBHOOK_SECRET"),
    *("TAGGER_URL", "TAGGER_KEY"),
}

REFUSED = {
    "DEVICE": ["gpu", "cuda:x", "tpu"],
    "EXECUTOR": ["celery", "k8s"],
    "GPUS": ["-1", "0.5"],
    "SHIFTS": ["-1", "21", "0.5"],
    "OVERLAP": ["-0.1", "1", "nan"],
    "SEGMENT_S": ["0.5", "long", "nan"],
    "PRECISION": ["fp8", "half"],
    "BATCH": ["0", "257"],
    "STEMS": ["drums", "vocals,drums", "-", "vocals,-accompaniment", "-vocals,-accompaniment", " , "],
    "ONEDNN": ["yes", "1"],
    "TAG_WINDOW_S": ["0.5", "301", "nan"],
    "TAG_HOP_S": ["0", "-1"],
    "TAG_BATCH": ["0", "1025"],
    "TAG_MODE": ["prose"],
    "TAGGER_REQUESTS": ["0", "1025"],
    "TAGGER_TIMEOUT_S": ["0", "nan"],
    "SONGS_PER_RUN": ["0", "many", "10001"],
    "STEP_RETRIES": ["-1", "21", "1.5"],
    "STEP_RETRY_DELAY_S": ["-1", "soon"],
    "FLAC_BITS": ["20", "32"],
    "PRESENT_FROM": ["1.1", "-0.1", "nan"],
    "AUDIBLE_DB": ["1", "-201", "nan"],
    "HISTORY_DAYS": ["0", "0.5", "3651"],
    "MAX_UPLOAD_BYTES": ["0", "2GB"],
    "MIN_DURATION_S": ["-1"],
    "MAX_DURATION_S": ["0", "nan"],
    "MAX_SAMPLE_RATE": ["44.1", "7999"],
    "MAX_CHANNELS": ["0"],
    "MAX_TAG_BYTES": ["0"],
    "MAX_PICTURE_BYTES": ["0"],
    "MAX_DECODE_MEMORY_MB": ["63"],
    "MAX_DECODE_CPU_S": ["0", "1.5"],
    "MAX_DECODE_SILENCE_S": ["0"],
    "SETTLE_S": ["-1"],
    "WATCH_EVERY_S": ["0"],
    "SENSOR_EVERY_S": ["0", "2.5"],
}


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DAGSTER_HOME", "")  # also undoes what dagster_home sets


@pytest.mark.parametrize("variable", USED)
def test_a_variable_becomes_a_typed_field(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, value = USED[variable]
    assert getattr(load_settings(), variable.lower()) != value
    monkeypatch.setenv(PREFIX + variable, text)
    found = getattr(load_settings(), variable.lower())
    assert (type(found), found) == (type(value), value)


def test_every_field_has_its_variable_tested_here_and_is_described() -> None:
    assert {name.upper() for name in Settings.model_fields} == {*USED, *SECRETS}
    assert all(field.description for field in Settings.model_fields.values())


@pytest.mark.parametrize(
    ("variable", "text"), [(variable, text) for variable, texts in REFUSED.items() for text in texts]
)
def test_a_value_that_cannot_be_used_is_refused_by_name(
    variable: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PREFIX + variable, text)
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert PREFIX + variable in str(refused.value) and text in str(refused.value)


def test_all_wrong_variables_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, texts in REFUSED.items():
        monkeypatch.setenv(PREFIX + variable, texts[0])
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert all(PREFIX + variable in str(refused.value) for variable in REFUSED)


@pytest.mark.parametrize("url", ["ftp://host/music", "s3://", "s3://bucket/../other"])
def test_a_storage_that_is_none_is_refused_by_name(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANDSCOPE_STORAGE", url)
    with pytest.raises(SettingsError, match="BANDSCOPE_STORAGE"):
        load_settings().open_store()


def test_the_secret_is_in_no_text_about_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANDSCOPE_STORAGE", "s3://bucket/prefix")
    monkeypatch.setenv("BANDSCOPE_S3_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("BANDSCOPE_S3_SECRET_ACCESS_KEY", SECRET)
    settings = load_settings()
    secret = settings.s3_secret_access_key
    assert secret is not None and secret.get_secret_value() == SECRET
    assert SECRET not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    keys, _ = settings.open_store().polars_access()["credential_provider"]()
    assert SECRET in keys.values(), "the store does not use the secret"

    monkeypatch.setenv("BANDSCOPE_FLAC_BITS", "20")
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert SECRET not in str(refused.value)
    assert refused.value.__suppress_context__, "a traceback would show pydantic's message with the secret"


def test_the_server_of_the_tagger_has_its_settings_and_its_secrets_are_in_no_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert load_settings().tagger_server is None
    monkeypatch.setenv("BANDSCOPE_TAGGER_URL", "http://gpu:8000/v1")
    monkeypatch.setenv("BANDSCOPE_TAGGER_KEY", SECRET)
    monkeypatch.setenv("BANDSCOPE_TAGGER_REQUESTS", "8")
    settings = load_settings()
    server = settings.tagger_server
    assert server == ServerOptions("http://gpu:8000/v1", key=SECRET, requests=8)
    texts = (
        f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()} {server!r} {server}"
    )
    assert SECRET not in texts

    monkeypatch.setenv("BANDSCOPE_TAGGER_URL", f"ftp://mia:{SECRET}@gpu/v1")
    with pytest.raises(SettingsError, match="BANDSCOPE_TAGGER_URL") as refused:
        _ = load_settings().tagger_server
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("variables", "gpus", "turns"),
    [
        ({}, 1, True),
        ({"DEVICE": "cpu"}, 0, True),
        ({"TAGGER_URL": "http://gpu/v1"}, 0, False),
        ({"TAGGER_URL": "http://gpu/v1", "SEPARATOR": "htdemucs"}, 1, True),
        ({"TAGGER_URL": "http://gpu/v1", "SEPARATOR": "htdemucs", "GPUS": "0"}, 0, False),
        ({"TAGGER_URL": "http://gpu/v1", "GPUS": "1"}, 1, True),
        ({"TAGGER_URL": "http://gpu/v1", "EXECUTOR": "in_process"}, 0, True),
    ],
)
def test_a_step_on_a_cluster_asks_for_a_gpu_and_a_turn_only_if_it_needs_them(
    variables: dict[str, str], gpus: int, turns: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ({"EXECUTOR": "kubernetes"} | variables).items():
        monkeypatch.setenv(PREFIX + name, value)
    settings = load_settings()
    assert (settings.gpus_asked, settings.takes_turns) == (gpus, turns)
    if settings.executor == "kubernetes" and settings.device == "auto":
        assert settings.models_device == ("cuda" if gpus else "auto")


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = load_settings()
    for variable in USED:
        monkeypatch.setenv(PREFIX + variable, "")
    assert load_settings() == defaults


def test_a_misspelt_variable_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANDSCOPE_TAGGER", "musicnn")
    monkeypatch.setenv("BANDSCOPE_separator", "htdemucs")  # case does not matter
    assert unknown_variables() == []
    monkeypatch.setenv("BANDSCOPE_SEPERATOR", "htdemucs")
    assert unknown_variables() == ["BANDSCOPE_SEPERATOR"]


def test_the_limits_are_those_of_the_settings() -> None:
    same = {
        "min_duration_s": 1,
        "max_duration_s": 2,
        "max_sample_rate": 9000,
        "max_channels": 3,
        "max_tag_bytes": 6,
        "max_picture_bytes": 7,
        "max_decode_cpu_s": 8,
        "max_decode_silence_s": 9,
    }
    settings = Settings(max_upload_bytes=5, max_decode_memory_mb=64, **same)
    assert settings.limits == Limits(max_bytes=5, max_decode_memory_bytes=64 * 2**20, **same)


def test_the_default_limits_are_the_same_in_both_places() -> None:
    assert Settings().limits == Limits(max_bytes=Settings().max_upload_bytes)


OLD_DAGSTER_YAML = """\
# Written by bandscope: runs and their history are beside this file, in SQLite.
# All options: https://docs.dagster.io/deployment/oss/dagster-yaml
event_log_storage:
  # Dagster's own with its connections kept open: several times as fast. Optional: docs/event-log.md
  module: bandscope_dagster.orchestration.event_log
  class: SqliteEventLog
  config:
    home: {env: DAGSTER_HOME}
run_queue:
  dequeue_interval_seconds: 1  # how long a run waits at most if no other is before it; Dagster's default is 5
telemetry:
  enabled: false
"""


def test_dagsters_home_is_below_the_users_where_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    home = dagster_home()
    assert home == tmp_path / ".bandscope" / "dagster" and home.is_dir()
    assert os.environ["DAGSTER_HOME"] == str(home), "Dagster and child processes read the variable"


def test_a_relative_home_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", "home")
    assert dagster_home() == tmp_path / "home"
    assert os.environ["DAGSTER_HOME"] == str(tmp_path / "home")


def test_a_new_home_gets_a_configuration_that_dagster_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import dagster as dg

    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    dagster_home()
    with dg.DagsterInstance.get() as instance:
        assert instance.root_directory == str(tmp_path / "home")
        assert instance.telemetry_enabled is False and instance.nux_enabled is False
        assert instance.run_retries_enabled
    assert "dagster.yaml" not in capfd.readouterr().err, "Dagster warned about its configuration"


def test_an_earlier_configuration_of_ours_is_replaced_and_an_edited_one_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    config = tmp_path / "dagster.yaml"
    edited = OLD_DAGSTER_YAML.replace("false", "true")
    for found, after in ((OLD_DAGSTER_YAML, DAGSTER_YAML), (edited, edited), (DAGSTER_YAML, DAGSTER_YAML)):
        config.write_text(found)
        dagster_home()
        assert config.read_text() == after
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dagster.yaml"]
