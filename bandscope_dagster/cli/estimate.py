"""The time that separation will take, printed before it begins."""

from collections.abc import Collection
from typing import Final

from rich.console import Console
from rich.markup import escape

from bandscope_dagster.errors import BandscopeError, counted
from bandscope_dagster.models.networks import RoformerNetwork
from bandscope_dagster.orchestration.resources import Models, models_here
from bandscope_dagster.pipeline.disk_space import known_seconds
from bandscope_dagster.separation.presets import name_of
from bandscope_dagster.separation.speed import device_in_words, in_words, measure_speed
from bandscope_dagster.settings import Settings
from bandscope_dagster.storage.tables.schemas import STEMS
from bandscope_dagster.storage.tables.song_files import SongFiles


class SpeedUnknown(BandscopeError):
    """The model could not be loaded, or the short call failed; a run takes less memory by itself, and may succeed."""


WORTH_TELLING: Final = 0.1  # of a song's length; a model that takes less is fast, and nothing is said


def tells_speed(settings: Settings) -> bool:
    """True if the separator may be slow, and computes on this machine: embedded models are fast everywhere."""
    in_this_process = settings.executor == "in_process"
    return in_this_process and not all(model.embedded for model in models_here(settings, [STEMS.name]))


def speed_line(console: Console, settings: Settings) -> str:
    """The speed of the separator of the settings on their device.

    It takes as long as loading the model, which a later run of this process does not do again, and a few seconds.

    Raises:
        SpeedUnknown: the model could not be loaded, or the short call failed.
        ModelFileError, SettingsError: the model or the device cannot be used.
    """
    return f"{_name(settings)}: {_bound(settings)} {_words(_factor(console, settings))}"


def print_estimate(console: Console, settings: Settings, files: SongFiles, songs: Collection[str]) -> None:
    """Print how long the separation of ``songs`` will take, unless that is short. Failures of the probe are printed."""
    if not songs or not tells_speed(settings):
        return
    try:
        factor = _factor(console, settings)
    except SpeedUnknown as error:
        console.print(escape(str(error)), highlight=False, soft_wrap=True)
        return
    if factor < WORTH_TELLING:
        return
    seconds = known_seconds(files, songs)
    total = sum(seconds.values())
    bound = _bound(settings)
    if all(song in seconds for song in songs):
        audio = f"{counted(len(songs), 'song')} of {in_words(total)} in all"
        text = f"{audio}: {bound} {in_words(factor * total)}"
    else:
        text = f"{counted(len(songs), 'song')}: {bound} {in_words(60 * factor)} for each minute of audio"
    line = f"{_name(settings)}: {bound} {_words(factor)}; {text}"
    console.print(escape(line), highlight=False, soft_wrap=True)


def _factor(console: Console, settings: Settings) -> float:
    name = name_of(settings.separator)
    try:
        with console.status(f"measuring the speed of {name}"):  # visible on a terminal only, until it is done
            return measure_speed(Models(settings).separator())
    except BandscopeError:
        raise
    except Exception as error:
        raise SpeedUnknown(
            f"the speed of {name} cannot be measured: {type(error).__name__}: {error}"
        ) from error


def _name(settings: Settings) -> str:
    separator = Models(settings).separator()
    return f"{name_of(settings.separator)} on {device_in_words(separator.device)}"


def _bound(settings: Settings) -> str:
    """The words before a figure: a RoFormer takes longer for whole chunks, see ``measure_speed``."""
    attends = any(isinstance(model.network, RoformerNetwork) for model in models_here(settings, [STEMS.name]))
    return "at least" if attends else "about"


def _words(factor: float) -> str:
    digits = 1 if factor >= 0.95 else 2
    return f"{factor:.{digits}f} \u00d7 the length of a song"
