"""All settings: environment variables ``BANDSCOPE_…``, read into one typed, frozen object."""

import os
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from bandscope_dagster.audio.limits import Limits
from bandscope_dagster.errors import SettingsError
from bandscope_dagster.separation.chosen_stems import parse_stems
from bandscope_dagster.separation.options import OneDnn, SeparationOptions
from bandscope_dagster.separation.presets import find_preset
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore, S3Options
from bandscope_dagster.tagging.options import ServerOptions, TaggingOptions
from bandscope_dagster.tagging.presence_rule import AUDIBLE_DB

PREFIX: Final = "BANDSCOPE_"
SMALL_SEPARATOR: Final = "spleeter-2stems"  # 0.2 CPU seconds for a second of audio
ExecutorName = Literal["in_process", "ray", "kubernetes"]


def _as_number(value: object) -> object:
    """A number for a variable's text: pydantic compares a Literal with the text itself."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


class Settings(BaseSettings):
    """The settings of an operator. Each field is the environment variable ``BANDSCOPE_<FIELD>``.

    The docstring of a field is its description in ``docs/settings.md``.
    """

    # Compose files pass unset variables as empty ones.
    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True, use_attribute_docstrings=True
    )

    storage: str = "~/bandscope"
    """Object store of uploads and tables: a local folder, or s3://bucket/prefix."""
    s3_endpoint: str | None = None
    """URL of an S3-compatible server. Default: AWS_ENDPOINT_URL_S3, or endpoint_url of the profile, or Amazon S3."""
    s3_region: str | None = None
    """Region of the S3 bucket. Default: AWS_REGION, or the region of the profile in ~/.aws/config, or us-east-1."""
    s3_access_key_id: str | None = None
    """Access key for S3. Default: the keys that the AWS tools find: variables, AWS_PROFILE and ~/.aws (keys, SSO,
    roles, processes), a web identity, the role of a container or a machine."""
    s3_secret_access_key: SecretStr | None = None
    """Secret key for S3."""
    s3_virtual_host: bool = False
    """Send requests to bucket.host (true) or to host/bucket (false). Some servers take only one of them."""

    separator: str = SMALL_SEPARATOR
    """Model that separates songs into stems, or a preset, which names the models of each stem, or the path of a preset
    of your own (.toml; see models.md). `bandscope models list` shows all."""
    tagger: str = "bandscope-instruments"
    """Model that tags instruments; `bandscope models list` shows all."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
    """Device of the models. auto uses CUDA, else MPS, else the CPU; a named device must exist."""

    executor: ExecutorName = "in_process"
    """Place where the steps of a run are computed: in the run's own process, or each step as a job of the Ray cluster
    at RAY_ADDRESS, or of the Kubernetes cluster of the run (see deploy/README.md)."""
    gpus: Annotated[int, Field(ge=0)] | None = None
    """GPUs that an `analyze` step requests from a cluster. Default: 1; 0 if BANDSCOPE_DEVICE is cpu, or if the
    separator is spleeter-2stems and the tagger is on a server (BANDSCOPE_TAGGER_URL)."""

    shifts: int | None = Field(default=None, ge=0, le=20)
    """Demucs: number of passes over each song, shifted by different parts of 0.5 s, which are averaged. Default: 0,
    which is one pass without a shift."""
    overlap: float | None = Field(default=None, ge=0, lt=1)
    """Demucs, SCNet, RoFormer: overlap of neighbouring segments, as a share of their length. Default: 0.25 for Demucs,
    0.75 for SCNet, 0.5 for the RoFormers."""
    segment_s: float | None = Field(default=None, ge=1)
    """Demucs, SCNet, RoFormer: length of a segment in seconds. Default: the model's own, 7.8 for htdemucs; shorter
    segments need less memory."""
    precision: Literal["fp32", "tf32", "bf16", "fp16"] | None = None
    """Demucs, SCNet, RoFormer: precision of the networks' computations. Default: fp32."""
    batch: int | None = Field(default=None, ge=1, le=256)
    """Maximum segments per call of the separator. Default: 1 on a CPU; on an accelerator 8, or 4 for SCNet and the
    RoFormers."""
    stems: str | None = None
    """Stems to compute and to store, separated by commas, such as vocals,drums; or those to leave out, each with a
    minus sign: -drums. Default: all stems of the separator."""
    onednn: OneDnn = "auto"
    """HTDemucs on a CPU: multiply by oneDNN (on) or by torch's MKL (off); auto is on for AMD processors with AVX-512.
    Changes the speed only."""

    tag_window_s: float | None = Field(default=None, ge=1, le=300)
    """Qwen-Omni: length of a window in seconds. Default: 30."""
    tag_hop_s: float | None = Field(default=None, gt=0)
    """AST, Qwen-Omni: seconds from the start of one window to the start of the next, at most the length of a window.
    Default: the length of a window."""
    tag_batch: int | None = Field(default=None, ge=1, le=1024)
    """Maximum windows per call of the tagger. Default: the tagger's best for the device."""
    tag_mode: Literal["list", "layers"] | None = None
    """Qwen-Omni: question to the model. list asks for a list of instruments; layers first asks for a description, then
    for the instruments in foreground, middle ground and background. Default: list."""

    tagger_url: SecretStr | None = None
    """Qwen-Omni: URL of a server that runs the model, with OpenAI's interface of chat completions, such as
    http://127.0.0.1:8000/v1. Unset: this process runs it."""
    tagger_key: SecretStr | None = None
    """Key for this server."""
    tagger_model: str | None = None
    """Name of the model on this server. Default: that of the repository with its weights, which vLLM uses too."""
    tagger_revision: str | None = None
    """Revision of the weights on this server, which does not say it itself. Default: unknown. Another one makes tags
    outdated."""
    tagger_requests: int = Field(default=64, ge=1, le=1024)
    """Windows about which this server is asked at once."""
    tagger_timeout_s: float = Field(default=300.0, gt=0, le=86_400)
    """Longest time of one answer of this server, in seconds."""

    models_folder: str = "~/.bandscope/models"
    """Folder of the model weights that are not part of the package."""

    songs_per_run: int = Field(default=64, ge=1, le=10_000)
    """Maximum songs per run. The models are loaded once per run."""
    step_retries: int = Field(default=2, ge=0, le=20)
    """Number of retries of a step in which songs failed."""
    step_retry_delay_s: float = Field(default=5.0, ge=0)
    """Delay before the first retry, in seconds. It doubles with each retry."""
    flac_bits: Annotated[Literal[16, 24], BeforeValidator(_as_number)] = 16
    """Bits per sample of the stored FLAC blocks."""

    present_from: float | None = Field(default=None, ge=0, le=1)
    """Lowest score, in [0, 1], at which catalogs and pages count an instrument as present in a window, for every
    tagger and instrument. Default: the tagger's own rule."""
    audible_db: float = Field(default=AUDIBLE_DB, ge=-200, le=0)
    """Level of a stem in a window, in dB relative to the whole song, below which no instrument counts as present in the
    window: separators leave soft remains in stems that a song does not have. -200 counts all windows."""

    history_days: int = Field(default=30, ge=1, le=3650)
    """Days for which earlier versions of the catalogs are kept in their Delta tables (`bandscope history`). A refresh
    deletes the files of older ones, at most once a day. Rows of forgotten songs stay in these files until then."""

    alert_webhook: SecretStr | None = None
    """URL to which a sensor posts each failed run as JSON. If unset, the failure is only in the sensor's log."""
    result_webhook: SecretStr | None = None
    """URL to which the result of each song is posted as JSON, signed and at least once: see results.md."""
    result_webhook_secret: SecretStr | None = None
    """Secret that signs these posts: whsec_ and 24 to 64 bytes in base64. The receiver has the same."""
    ui_url: str = "http://127.0.0.1:3000"
    """Address of the Dagster UI, for links in alerts."""

    settle_s: float = Field(default=1.0, ge=0, le=3600)
    """Time in seconds for which a file in a local uploads/ must not have changed before it is taken."""

    watch_every_s: float = Field(default=1.0, ge=0.1, le=3600)
    """Time in seconds between two listings of an S3 store by `bandscope run --watch`. Listings take at most a twentieth
    of the time: with very many uploads the pauses are longer."""
    sensor_every_s: int = Field(default=5, ge=1, le=3600)
    """Time in seconds between two ticks of the sensor `new_uploads`. A tick lists nothing while the listings before it
    took more than a twentieth of the time: with very many uploads the pauses are longer."""

    max_upload_bytes: int = Field(default=2 * 2**30, ge=1)
    """Largest upload in bytes; larger ones are rejected."""
    min_duration_s: float = Field(default=0.5, ge=0)
    """Shortest song in seconds; shorter ones are rejected."""
    max_duration_s: float = Field(default=7200.0, gt=0)
    """Longest song in seconds; longer ones are rejected."""
    max_sample_rate: int = Field(default=384_000, ge=8_000)
    """Highest sample rate in Hz; files above it are rejected."""
    max_channels: int = Field(default=8, ge=1)
    """Largest number of channels; files with more are rejected."""

    max_tag_bytes: int = Field(default=2**20, ge=1)
    """Largest size of all tags in a file, in bytes; files with more are rejected."""
    max_picture_bytes: int = Field(default=32 * 2**20, ge=1)
    """Largest picture in a file, in bytes; files with a larger one are rejected."""
    max_decode_memory_mb: int = Field(default=1024, ge=64)
    """Maximum memory to decode a file, in MiB; files that need more are rejected (not on macOS)."""
    max_decode_cpu_s: int = Field(default=600, ge=1)
    """Maximum CPU time to decode a file, in seconds; files that need more are rejected."""
    max_decode_silence_s: float = Field(default=60.0, gt=0)
    """Longest time without decoded audio, in seconds; files that exceed it are rejected."""

    @field_validator("separator", "stems")
    @classmethod
    def _usable(cls, text: str | None, info: ValidationInfo) -> str | None:
        """The text unchanged, unless it is a preset that cannot be used, or names other stems than the separator's."""
        try:
            if info.field_name == "separator":
                find_preset(text or "")
            elif text is not None:
                parse_stems(text, info.data.get("separator", ""))
        except SettingsError as error:
            raise ValueError(str(error)) from None  # so that it is listed with all other wrong variables
        return text

    @property
    def gpus_asked(self) -> int:
        """Number of GPUs that a step with models requests from a cluster."""
        if self.gpus is not None:
            return self.gpus
        small = self.tagger_url is not None and self.separator == SMALL_SEPARATOR
        return 0 if self.device == "cpu" or small else 1

    @property
    def takes_turns(self) -> bool:
        """True if steps with models take turns; jobs of a cluster that only ask a server have CPUs of their own."""
        return self.executor == "in_process" or self.tagger_url is None or self.gpus_asked > 0

    @property
    def models_device(self) -> str:
        """The device of the models.

        A step that requested a GPU from a cluster must use it: there, ``auto`` does not fall back to the CPU.
        """
        on_a_gpu = self.executor != "in_process" and self.gpus_asked > 0
        return "cuda" if on_a_gpu and self.device == "auto" else self.device

    @property
    def models_path(self) -> Path:
        """The folder of the model weights that are not part of the package; it may not exist."""
        return Path(self.models_folder).expanduser()

    @property
    def limits(self) -> Limits:
        """The limits for reading and decoding an upload."""
        memory_bytes = self.max_decode_memory_mb * 2**20
        same = self._named_as_in(Limits)
        return Limits(max_bytes=self.max_upload_bytes, max_decode_memory_bytes=memory_bytes, **same)

    @property
    def separation(self) -> SeparationOptions:
        """The options of the separator; an option that is None has the separator's own default."""
        options = self._named_as_in(SeparationOptions)
        options["stems"] = None if self.stems is None else parse_stems(self.stems, self.separator)
        return SeparationOptions(**options)

    @property
    def tagging(self) -> TaggingOptions:
        """The options of the tagger; an option that is None has the tagger's own default."""
        return TaggingOptions(**self._named_as_in(TaggingOptions, prefix="tag_"))

    @property
    def tagger_server(self) -> ServerOptions | None:
        """The server that runs the tagger; None if this process does.

        Raises:
            SettingsError: its URL cannot be used.
        """
        if self.tagger_url is None:
            return None
        options = self._named_as_in(ServerOptions, prefix="tagger_")
        options["url"] = self.tagger_url.get_secret_value()
        options["key"] = self.tagger_key.get_secret_value() if self.tagger_key else None
        return ServerOptions(**options)

    def _named_as_in(
        self,
        options: type[Limits | SeparationOptions | TaggingOptions | ServerOptions | S3Options],
        prefix: str = "",
    ) -> dict[str, Any]:
        """Field of ``options`` → the setting of that name, after ``prefix``; without fields that are no setting."""
        names = [entry.name for entry in fields(options) if prefix + entry.name in Settings.model_fields]
        return {name: getattr(self, prefix + name) for name in names}

    def open_store(self) -> ObjectStore:
        """Open the object store of these settings. Nothing is read or written yet.

        Raises:
            SettingsError: ``storage`` is not a store.
        """
        secret = self.s3_secret_access_key
        options = self._named_as_in(S3Options, prefix="s3_")
        options["secret_access_key"] = secret.get_secret_value() if secret else None
        try:
            return open_store(self.storage, S3Options(**options))
        except ValueError as error:
            raise SettingsError(f"{PREFIX}STORAGE: {error}") from None


def load_settings() -> Settings:
    """The settings of this process's environment.

    Raises:
        SettingsError: a variable has an invalid value. The message has all such variables.
    """
    try:
        return Settings()
    except ValidationError as error:
        lines = [
            f"{PREFIX}{'_'.join(str(part) for part in problem['loc']).upper()}: "
            f"{problem['msg'].removeprefix('Value error, ')} (found {problem['input']!r})"
            for problem in error.errors()
        ]
        raise SettingsError("Invalid settings:\n  " + "\n  ".join(lines)) from None


def unknown_variables() -> list[str]:
    """The variables of this environment that begin with ``BANDSCOPE_`` but are no settings: probably misspelt."""
    known = {f"{PREFIX}{field}".upper() for field in Settings.model_fields}
    return sorted(name for name in os.environ if name.startswith(PREFIX) and name.upper() not in known)
