"""The parameters of published networks, typed and checked: part of the inventory, never read from a model's files."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import UnionType
from typing import Any, Final, Literal, Union, cast, get_args, get_origin

STEREO: Final = 2  # channels


@dataclass(frozen=True, slots=True)
class Chunking:
    """The chunks in which a network separates a song, as its publisher's inference cuts them."""

    frames: int  # of a chunk, at 44.1 kHz
    # The number of chunks that contain a frame; a chunk starts every ``frames // overlap`` frames.
    overlap: int
    normalised: bool  # True if the song is shifted and scaled to zero mean and unit deviation first

    def __post_init__(self) -> None:
        _require(self.frames >= 20, "a chunk needs at least 20 frames, or its fades have no length")
        _require(2 <= self.overlap <= self.frames // 2, "the overlap must be 2 or more")


@dataclass(frozen=True, slots=True)
class ScnetNetwork:
    """An SCNet (Tong et al. 2024, https://arxiv.org/abs/2401.13276). Triples are for the low, middle and high band."""

    stems: tuple[str, ...]  # in the order of the outputs
    chunks: Chunking
    # Of the spectrogram (real and imaginary part of two channels), then of each encoder.
    channels: tuple[int, ...]
    n_fft: int  # frames; the window is rectangular
    hop: int  # frames
    band_shares: tuple[float, ...]  # of all frequencies
    band_strides: tuple[int, ...]  # frequencies that become one
    band_kernels: tuple[int, ...]  # frequencies
    band_depths: tuple[int, ...]  # residual layers over time
    compression: int  # a residual layer has the channels of its band, divided by this
    time_kernel: int  # STFT frames
    dual_paths: int  # recurrent layers over frequency and time
    expansion: int  # units of an LSTM, in one direction, for each of its input channels

    def __post_init__(self) -> None:
        _require_stems(self.stems)
        _require(
            len(self.channels) >= 2 and self.channels[0] == 2 * STEREO, "the first of channels must be 4"
        )
        bands = (self.band_shares, self.band_strides, self.band_kernels, self.band_depths)
        _require(all(len(values) == 3 for values in bands), "there must be three bands")
        _require(abs(sum(self.band_shares) - 1) < 0.01, "the bands' shares must add up to 1")
        _require(self.time_kernel % 2 == 1, "time_kernel must be odd")
        _require(self.chunks.frames >= self.n_fft, "a chunk must have a window or more")
        _require(
            self.dual_paths % 2 == 0,
            "dual_paths must be even: every second one undoes the transform before it",
        )
        _require_positive(
            *(*self.channels, *self.band_strides, *self.band_kernels, *self.band_depths),
            *(self.n_fft, self.hop, self.compression, self.dual_paths, self.expansion),
        )

    @property
    def estimated(self) -> tuple[str, ...]:
        """The stems that the network estimates: all of them."""
        return self.stems


@dataclass(frozen=True, slots=True)
class RoformerNetwork:
    """A band-split or mel-band RoFormer (https://arxiv.org/abs/2309.02612, https://arxiv.org/abs/2310.01809)."""

    # The estimated stems; "accompaniment" may follow, which is the mixture without them.
    stems: tuple[str, ...]
    chunks: Chunking
    # Frequencies in each band; or 60 overlapping bands of the mel scale.
    bands: tuple[int, ...] | Literal["mel"]
    width: int  # features of a band at a time
    depth: int  # pairs of a transformer over time and one over bands
    heads: int
    head_width: int
    n_fft: int  # frames; the window is Hann's
    hop: int  # frames
    mask_layers: int  # hidden layers of the mask estimators
    mask_expansion: int  # units of a hidden layer for each feature

    def __post_init__(self) -> None:
        _require_stems(self.stems)
        _require_positive(
            *(self.width, self.depth, self.heads, self.head_width),
            *(self.n_fft, self.hop, self.mask_layers, self.mask_expansion),
        )
        _require(self.head_width % 2 == 0, "head_width must be even: rotation is of pairs")
        _require(self.chunks.frames >= self.n_fft, "a chunk must have a window or more")
        if self.bands != "mel":
            _require_positive(*self.bands)
            _require(
                sum(self.bands) == self.n_fft // 2 + 1,
                "the bands must have every frequency of the spectrogram once",
            )

    @property
    def estimated(self) -> tuple[str, ...]:
        """The stems that the network estimates, in the order of its outputs."""
        return tuple(stem for stem in self.stems if stem != ACCOMPANIMENT)


Network = ScnetNetwork | RoformerNetwork

ACCOMPANIMENT: Final = "accompaniment"  # the mixture minus the estimated stems, for networks of one stem
MEL_BANDS: Final = 60  # of every published mel-band RoFormer


def read_network(entry: Mapping[str, Any]) -> Network:
    """The network of an inventory's entry, a table with ``architecture`` and the fields of its class.

    Raises:
        ValueError: the architecture is unknown, a field is missing, unknown or of another type, or values contradict
            each other.
    """
    values = dict(entry)
    architecture = values.pop("architecture", None)
    cls = {"scnet": ScnetNetwork, "roformer": RoformerNetwork}.get(str(architecture))
    if cls is None:
        raise ValueError(f"unknown architecture {architecture!r}; choose scnet or roformer")
    try:
        chunks = Chunking(**values.pop("chunks"))
        network = cls(chunks=chunks, **{name: _frozen(value) for name, value in values.items()})
    except (KeyError, TypeError) as error:
        raise ValueError(f"not the parameters of a {architecture}: {error}") from error
    for part in (chunks, network):
        _require_types(part)
    return network


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _require_types(part: Chunking | Network) -> None:
    for each in fields(part):
        value = getattr(part, each.name)
        _require(_is(value, each.type), f"{each.name} = {value!r} is of another type")


def _is(value: object, kind: object) -> bool:
    """True if ``value`` has the annotated type ``kind``; a whole number counts as a float, and a bool not as an int."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is tuple:
        return isinstance(value, tuple) and all(
            _is(item, arguments[0]) for item in cast(tuple[object, ...], value)
        )
    if origin is UnionType or origin is Union:
        return any(_is(value, one) for one in arguments)
    if origin is Literal:
        return value in arguments
    return kind in ((int, float) if type(value) is int else (type(value),))


def _require_stems(stems: tuple[str, ...]) -> None:
    _require(bool(stems) and len(set(stems)) == len(stems), "the stems must have different names")


def _require_positive(*values: int) -> None:
    _require(all(value > 0 for value in values), "sizes and numbers of layers must be above zero")


def _require(condition: bool, rule: str) -> None:
    if not condition:
        raise ValueError(rule)
