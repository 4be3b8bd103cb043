"""The text of docs/settings.md, from the fields of ``Settings``; ``scripts/write_docs.py`` writes the page."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from bandscope_dagster.settings import PREFIX, Settings

GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "The store": (
        "storage",
        "s3_endpoint",
        "s3_region",
        "s3_access_key_id",
        "s3_secret_access_key",
        "s3_virtual_host",
    ),
    "Models and device": ("separator", "tagger", "device", "models_folder"),
    "Runs": (
        "songs_per_run",
        "settle_s",
        "watch_every_s",
        "sensor_every_s",
        "step_retries",
        "step_retry_delay_s",
        "executor",
        "gpus",
    ),
    "Separation": ("stems", "shifts", "overlap", "segment_s", "precision", "batch", "onednn"),
    "Tagging": ("tag_window_s", "tag_hop_s", "tag_batch", "tag_mode", "present_from", "audible_db"),
    "A tagger on a server": (
        *(
            "tagger_url",
            "tagger_key",
            "tagger_model",
            "tagger_revision",
            "tagger_requests",
            "tagger_timeout_s",
        ),
    ),
    "Stored audio": ("flac_bits",),
    "Catalogs": ("history_days",),
    "Results and alerts": ("result_webhook", "result_webhook_secret", "alert_webhook", "ui_url"),
    "Limits of an upload": (
        *("max_upload_bytes", "min_duration_s", "max_duration_s", "max_sample_rate", "max_channels"),
        *("max_tag_bytes", "max_picture_bytes"),
    ),
    "Limits of decoding one upload": ("max_decode_memory_mb", "max_decode_cpu_s", "max_decode_silence_s"),
}
"""Heading → its settings, in the page's order."""

HEAD: Final = """\
# Settings

<!-- Made by `python scripts/write_docs.py` from bandscope_dagster/settings.py and scripts/settings_page.py. -->

Every setting is an environment variable, and every one has a default. An empty variable counts as unset. A value
that is not accepted stops the process, which then names all wrong variables at once. A misspelt variable does
nothing: `bandscope doctor` finds it.

In a deployment, the webserver, the daemon and every run need the same values.
"""

TAIL: Final = """\

## Variables of other programs

| variable | used for |
|---|---|
| `DAGSTER_HOME` | Dagster's home; `~/.bandscope/dagster` where it is unset (`bandscope` commands only) |
| `RAY_ADDRESS` | the Ray cluster, with `BANDSCOPE_EXECUTOR=ray`: [deploy/ray](../deploy/ray/README.md) |
| `AWS_…` | the keys, the region and the server of S3, where no setting names them |
| `DAGSTER_POSTGRES_…`, `DAGSTER_EVENT_BATCH_SIZE` | a home on PostgreSQL: [deploy](../deploy/README.md) |
"""

PATTERNS: Final = {r"^(auto|cpu|mps|cuda(:\d+)?)$": "`auto`, `cpu`, `mps`, `cuda`, `cuda:0`, `cuda:1`, …"}
KINDS: Final = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "`true` or `false`",
}


class Ungrouped(Exception):
    """A setting is in no group, or a group names one that is gone."""


def page_text() -> str:
    """``docs/settings.md``.

    Raises:
        Ungrouped: ``GROUPS`` and the fields of ``Settings`` differ.
    """
    fields: dict[str, dict[str, Any]] = Settings.model_json_schema()["properties"]
    grouped = [name for names in GROUPS.values() for name in names]
    if sorted(grouped) != sorted(fields):
        changed = sorted(set(grouped).symmetric_difference(fields)) or "a setting is listed twice"
        raise Ungrouped(f"put each setting into one group in scripts/settings_page.py: {changed}")
    return HEAD + "".join(_group(heading, names, fields) for heading, names in GROUPS.items()) + TAIL


def _group(heading: str, names: Iterable[str], fields: Mapping[str, dict[str, Any]]) -> str:
    lines = [f"\n## {heading}\n\n| variable | default | accepts | meaning |\n|---|---|---|---|\n"]
    for name in names:
        field = fields[name]
        accepts = " or ".join(_accepts(field)).replace("|", "\\|")
        meaning = " ".join(field["description"].split())
        lines.append(f"| `{PREFIX}{name.upper()}` | {_default(name, field)} | {accepts} | {meaning} |\n")
    return "".join(lines)


def _default(name: str, field: Mapping[str, Any]) -> str:
    value = field["default"]
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if not name.endswith("_bytes"):
        return f"`{value}`"
    return f"`{value}` ({f'{value / 2**30:g} GiB' if value >= 2**30 else f'{value / 2**20:g} MiB'})"


def _accepts(field: Mapping[str, Any]) -> Iterator[str]:
    """The values that a setting takes, in words, by its JSON schema."""
    for kind in field.get("anyOf", [field]):
        if kind.get("type") == "null":
            continue
        if "enum" in kind:
            yield ", ".join(f"`{value}`" for value in kind["enum"])
        elif "pattern" in kind:
            yield PATTERNS[kind["pattern"]]
        else:
            yield KINDS[kind["type"]] + _bounds(kind)


def _bounds(kind: Mapping[str, Any]) -> str:
    low, above = kind.get("minimum"), kind.get("exclusiveMinimum")
    high, below = kind.get("maximum"), kind.get("exclusiveMaximum")
    parts = [
        f"from {low:g}" if low is not None else "",
        f"above {above:g}" if above is not None else "",
        f"to {high:g}" if high is not None else "",
        f"below {below:g}" if below is not None else "",
    ]
    return "".join(f" {part}" for part in parts if part)
