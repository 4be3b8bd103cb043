"""The options of a tagger; the tagger chooses each one that is not set. And the server that runs it, if one does."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import SplitResult, unquote, urlsplit

from bandscope_dagster.errors import SettingsError
from bandscope_dagster.tagging.protocol import WindowPlan

Mode = Literal["list", "layers"]

TELLING: Final = 8  # characters from which a user name beside a password, or a value in the query, is masked


@dataclass(frozen=True, slots=True)
class TaggingOptions:
    """Options of a tagger; None is the tagger's default. ``hop_s`` is the setting ``TAG_HOP_S``, and so on."""

    window_s: float | None = None  # seconds, length of a window
    hop_s: float | None = None  # seconds, from the start of one window to the start of the next
    batch: int | None = None  # windows, most in one call of the model
    mode: Mode | None = None  # the questions to a language model; see ``prompts``

    def refuse(self, *names: str, tagger: str) -> None:
        """Raise SettingsError if one of these options is set: the tagger does not have it."""
        for name in names:
            if getattr(self, name) is not None:
                raise SettingsError(
                    f"BANDSCOPE_TAG_{name.upper()}={getattr(self, name)} has no meaning for {tagger}: unset it, "
                    f"or choose another BANDSCOPE_TAGGER"
                )

    def window_plan(self, tagger: str, sample_rate: int, length: int, lead: int = 0) -> WindowPlan:
        """Windows of ``length`` frames every ``hop_s``, with ``lead``; by default they do not overlap.

        Raises:
            SettingsError: the hop is not above 0, or would skip audio between the windows.
        """
        hop = length if self.hop_s is None else round(self.hop_s * sample_rate)
        if not 0 < hop <= length:
            raise SettingsError(
                f"BANDSCOPE_TAG_HOP_S={self.hop_s} does not fit {tagger}: it must be above 0 and at most the "
                f"{length / sample_rate:g} s of its windows"
            )
        return WindowPlan(sample_rate=sample_rate, length=length, hop=hop, lead=lead)


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """A server that runs the tagger, with OpenAI's interface of chat completions, as vLLM has it.

    URL and key may contain secrets, and are in no text about this object. White space around them, such as the line
    break at the end of a file with a key, does not belong to them.

    Raises:
        SettingsError: the URL is not an http or https URL, or has a user although there is a key; or the key has
            characters that cannot be sent.
    """

    url: str = field(
        repr=False
    )  # of the interface, such as http://host:8000/v1; may have a user and a password
    key: str | None = field(default=None, repr=False)
    model: str | None = None  # the name on the server; None: that of the model's repository
    revision: str | None = None  # of the weights, as the operator says; None: unknown
    requests: int = 64  # windows that are asked at once
    timeout_s: float = 300.0  # seconds, from sending a request to the end of its answer

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", self.url.strip())
        object.__setattr__(self, "key", (self.key or "").strip() or None)
        try:
            parts = self.parts
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # no number as port
            usable = False
        if not usable:
            raise SettingsError(
                "BANDSCOPE_TAGGER_URL must be the address of a server's interface, such as http://127.0.0.1:8000/v1"
            )
        if self.key is not None and not (self.key.isascii() and self.key.isprintable()):
            raise SettingsError(
                "BANDSCOPE_TAGGER_KEY has characters other than printable ASCII, which cannot be sent: set it to one "
                "line of letters, digits and signs"
            )
        if self.key is not None and self.parts.username is not None:
            raise SettingsError(
                "BANDSCOPE_TAGGER_URL has a user, and BANDSCOPE_TAGGER_KEY is set: only one of them can be sent"
            )

    @property
    def parts(self) -> SplitResult:
        """The URL in parts."""
        return urlsplit(self.url)

    @property
    def shown(self) -> str:
        """The URL without user, password and query, for messages."""
        parts = self.parts
        return (
            parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl().rstrip("/")
        )

    @property
    def basic(self) -> str | None:
        """User and password of the URL as HTTP's basic authentication sends them; None without a user."""
        if self.parts.username is None:
            return None
        user = f"{unquote(self.parts.username)}:{unquote(self.parts.password or '')}"
        return base64.b64encode(user.encode()).decode()

    def masked(self, text: str) -> str:
        """``text`` without the key and the secrets in the URL: user, password, and values of the query."""
        for secret in sorted(set(self._secrets()), key=len, reverse=True):
            text = text.replace(secret, "…")
        return text

    def _secrets(self) -> Iterator[str]:
        """The secrets as they are, as they are encoded, and as Python shows them within quotes."""
        parts = self.parts
        user, password = parts.username or "", parts.password or ""
        values = [pair.partition("=")[2] for pair in parts.query.split("&")]
        found = [
            self.key or "",
            self.basic or "",
            password,
            *(each for each in values if len(each) >= TELLING),
        ]
        if not password or len(user) >= TELLING:  # a token; a short name is often part of other words
            found.append(user)
        for secret in filter(None, found):
            yield from (secret, unquote(secret), repr(secret)[1:-1])
