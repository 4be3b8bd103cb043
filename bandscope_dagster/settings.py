"""Every setting in one place: environment variables ``BANDSCOPE_…`` become one typed, frozen object."""

import os
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from bandscope_dagster.audio.limits import Limits
from bandscope_dagster.errors import SettingsError
from bandscope_dagster.separation.options import OneDnn, SeparationOptions
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore, S3Options
from bandscope_dagster.tagging.options import TaggingOptions

PREFIX: Final = "BANDSCOPE_"

ExecutorName = Literal["in_process", "ray", "kubernetes"]


def _as_number(value: object) -> object:
    """A variable is text, and pydantic compares a Literal with it as it is."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


class Settings(BaseSettings):
    """What an operator can choose. Each field is the environment variable ``BANDSCOPE_<FIELD>``."""

    # Compose files pass an unset variable on as an empty one.
    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True)

    storage: str = Field(
        default="~/bandscope",
        description="Where uploads and tables lie: a local folder, or s3://bucket/prefix.",
    )
    s3_endpoint: str | None = Field(
        default=None, description="URL of an S3-compatible server; unset means AWS."
    )
    s3_region: str = Field(default="us-east-1", description="Region of the bucket.")
    s3_access_key_id: str | None = Field(
        default=None, description="Unset: the standard AWS environment is used."
    )
    s3_secret_access_key: SecretStr | None = Field(default=None, description="Unset: as above.")

    separator: str = Field(default="spleeter-2stems", description="Which model separates songs into stems.")
    tagger: str = Field(default="musicnn", description="Which model names the instruments.")
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = Field(
        default="auto", description="auto takes CUDA, then MPS, then the CPU; a named device must exist."
    )

    executor: ExecutorName = Field(
        default="in_process",
        description="Where the steps of a run are computed: in the run's own process, or each as a job of the Ray "
        "cluster at RAY_ADDRESS, or of the Kubernetes cluster that the run is in (deploy/README.md).",
    )
    gpus: Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="GPUs that a step of `analyze` asks of a cluster (1; none where DEVICE is cpu).",
    )

    shifts: int | None = Field(
        default=None,
        ge=0,
        le=20,
        description="Demucs: passes over each song, each shifted by another part of half a second, that are averaged.",
    )
    overlap: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Demucs: overlap of segments, as a share of their length (0.25).",
    )
    segment_s: float | None = Field(
        default=None,
        ge=1,
        description="Demucs: length of a segment in seconds (7.8); less takes less memory.",
    )
    precision: Literal["fp32", "tf32", "bf16", "fp16"] | None = Field(
        default=None, description="Demucs: in which precision the networks compute (fp32)."
    )
    batch: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="Segments in one call of the separator (1 on a CPU, 8 on an accelerator).",
    )
    onednn: OneDnn = Field(
        default="auto",
        description="HTDemucs on a CPU: multiply by oneDNN (on) or by torch's MKL (off); auto is on for AMD processors "
        "with AVX-512. Changes the speed only.",
    )

    tag_window_s: float | None = Field(
        default=None, ge=1, le=300, description="Qwen-Omni: seconds that it listens to at once (30)."
    )
    tag_hop_s: float | None = Field(
        default=None,
        gt=0,
        description="AST, Qwen-Omni: seconds from the start of one window to that of the next; at most a window.",
    )
    tag_batch: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="Windows in one call of the tagger; each tagger knows what is best on a CPU and an accelerator.",
    )
    tag_mode: Literal["list", "layers"] | None = Field(
        default=None,
        description="Qwen-Omni: asked for a list of instruments (list), or first for a description and then for the "
        "instruments of foreground, middle ground and background (layers).",
    )

    models_folder: str = Field(
        default="~/.bandscope/models",
        description="Where model weights lie that are not part of the package.",
    )

    songs_per_run: int = Field(
        default=64, ge=1, le=10_000, description="Songs in one run, and so per model load."
    )
    step_retries: int = Field(
        default=2, ge=0, le=20, description="How often a step with failed songs is tried again."
    )
    step_retry_delay_s: float = Field(
        default=5.0, ge=0, description="Delay before the first retry; doubles each time."
    )
    flac_bits: Annotated[Literal[16, 24], BeforeValidator(_as_number)] = Field(
        default=16, description="Bits per sample of the stored FLAC blocks."
    )

    present_from: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="The score from which the catalogs count an instrument as present; unset, each tagger has its own.",
    )

    alert_webhook: SecretStr | None = Field(
        default=None,
        description="URL to which every failed run is posted as JSON; unset, it only stands in a sensor's log.",
    )
    ui_url: str = Field(
        default="http://127.0.0.1:3000", description="Where people find the Dagster UI; for links in alerts."
    )

    max_upload_bytes: int = Field(default=2 * 2**30, ge=1, description="Larger uploads are rejected.")
    min_duration_s: float = Field(default=0.5, ge=0, description="Shorter songs are rejected.")
    max_duration_s: float = Field(default=7200.0, gt=0, description="Longer songs are rejected.")
    max_sample_rate: int = Field(
        default=384_000, ge=8_000, description="Files above this rate (Hz) are rejected."
    )
    max_channels: int = Field(default=8, ge=1, description="Files with more channels are rejected.")

    max_tag_bytes: int = Field(default=2**20, ge=1, description="Files with more bytes of tags are rejected.")
    max_picture_bytes: int = Field(
        default=32 * 2**20, ge=1, description="Files with a larger picture are rejected."
    )
    max_decode_memory_mb: int = Field(
        default=1024,
        ge=64,
        description="Files that take more memory (MiB) to decode are rejected; not on macOS.",
    )
    max_decode_cpu_s: int = Field(
        default=600, ge=1, description="Files that take more CPU time (seconds) to decode are rejected."
    )
    max_decode_silence_s: float = Field(
        default=60.0, gt=0, description="Files whose decoder gives nothing for so many seconds are rejected."
    )

    @property
    def gpus_asked(self) -> int:
        """How many GPUs a step with models asks of a cluster."""
        if self.gpus is not None:
            return self.gpus
        return 0 if self.device == "cpu" else 1

    @property
    def models_device(self) -> str:
        """The device that the models are told to use.

        A step that asked a cluster for a GPU must find one: ``auto`` does not fall back to the CPU there.
        """
        on_a_gpu = self.executor != "in_process" and self.gpus_asked > 0
        return "cuda" if on_a_gpu and self.device == "auto" else self.device

    @property
    def models_path(self) -> Path:
        """The folder of the model weights that are not part of the package; it need not exist."""
        return Path(self.models_folder).expanduser()

    @property
    def limits(self) -> Limits:
        """The bounds within which an upload is read and decoded."""
        return Limits(
            max_bytes=self.max_upload_bytes,
            min_duration_s=self.min_duration_s,
            max_duration_s=self.max_duration_s,
            max_sample_rate=self.max_sample_rate,
            max_channels=self.max_channels,
            max_tag_bytes=self.max_tag_bytes,
            max_picture_bytes=self.max_picture_bytes,
            max_decode_memory_bytes=self.max_decode_memory_mb * 2**20,
            max_decode_cpu_s=self.max_decode_cpu_s,
            max_decode_silence_s=self.max_decode_silence_s,
        )

    @property
    def separation(self) -> SeparationOptions:
        """What is chosen about the separation; what is not is the separator's own default."""
        return SeparationOptions(
            shifts=self.shifts,
            overlap=self.overlap,
            segment_s=self.segment_s,
            batch=self.batch,
            precision=self.precision,
            onednn=self.onednn,
        )

    @property
    def tagging(self) -> TaggingOptions:
        """What is chosen about tagging; what is not is the tagger's own default."""
        return TaggingOptions(
            window_s=self.tag_window_s, hop_s=self.tag_hop_s, batch=self.tag_batch, mode=self.tag_mode
        )

    def open_store(self) -> ObjectStore:
        """The object store that these settings name; nothing is read or written yet.

        Raises:
            SettingsError: ``storage`` or what belongs to it names none.
        """
        secret = self.s3_secret_access_key
        options = S3Options(
            endpoint=self.s3_endpoint,
            region=self.s3_region,
            access_key_id=self.s3_access_key_id,
            secret_access_key=secret.get_secret_value() if secret else None,
        )
        try:
            return open_store(self.storage, options)
        except ValueError as error:
            raise SettingsError(f"{PREFIX}STORAGE: {error}") from None


def load_settings() -> Settings:
    """The settings of this process's environment.

    Raises:
        SettingsError: a variable holds a value that cannot be used; every such variable is named.
    """
    try:
        return Settings()
    except ValidationError as error:
        lines = [
            f"{PREFIX}{'_'.join(str(part) for part in problem['loc']).upper()}: {problem['msg']}"
            f" (found {problem['input']!r})"
            for problem in error.errors()
        ]
        raise SettingsError("These settings cannot be used:\n  " + "\n  ".join(lines)) from None


def unknown_variables() -> list[str]:
    """The variables of this environment that look like settings and are none: misspelt, most likely."""
    known = {f"{PREFIX}{field}".upper() for field in Settings.model_fields}
    return sorted(name for name in os.environ if name.startswith(PREFIX) and name.upper() not in known)
