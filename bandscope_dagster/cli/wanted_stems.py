"""The stems that ``bandscope separate`` is asked for, and the songs whose stored stems lack some of them."""

import json
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from bandscope_dagster.separation.chosen_stems import chosen_stems, require_stems, stems_of, stored_stems
from bandscope_dagster.separation.presets import name_of
from bandscope_dagster.settings import Settings
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.lineage import read_lineage
from bandscope_dagster.storage.tables.schemas import STEMS
from bandscope_dagster.storage.tables.song_files import FOOTERS_AT_ONCE


@dataclass(frozen=True, slots=True)
class Stored:
    """The stems that a song has in the store."""

    separator: str  # the name of the model or preset that they are of
    stems: tuple[str, ...]  # empty if the separator is not known here
    chosen: bool  # True if they are a choice of its stems


@dataclass(frozen=True, slots=True)
class Wanted:
    """The stems that a call needs of each song."""

    separator: str  # the name of the separator of the settings
    separator_named: bool  # False if the settings name none, so that it is the default
    stems: tuple[str, ...]
    named: bool  # True if the call names them; False if they are those of the settings
    known: tuple[str, ...]  # all stems of the separator, in its order; empty if there is no such separator

    def again(self, stored: Stored) -> bool:
        """True if a song with these stems must be separated again.

        It must be if it lacks a wanted stem, or if the settings name another separator. Stems of another separator than
        the default stay, unless one is wanted that they lack.
        """
        lacks = not set(self.stems) <= set(stored.stems)
        if stored.separator == self.separator:
            return lacks and (self.named or stored.chosen)
        return self.separator_named or (lacks and self.named)

    def to_compute(self, again: Iterable[Stored]) -> tuple[str, ...] | None:
        """The stems to compute, so that songs with the stems ``again`` keep those that the separator has.

        None for those of the settings.
        """
        kept = {stem for stored in again for stem in stored.stems}
        if not self.named and kept <= set(self.stems):
            return None
        return tuple(stem for stem in self.known if stem in kept or stem in self.stems)


def wanted_stems(settings: Settings, names: Collection[str]) -> Wanted:
    """The stems in ``names``; if there are none, those of the settings.

    Raises:
        SettingsError: the separator of the settings has no such stem.
    """
    known = stems_of(settings.separator)
    separator, separator_named = name_of(settings.separator), "separator" in settings.model_fields_set
    if not names or not known:  # the run itself refuses an unknown separator
        stems = settings.separation.stems or known
        return Wanted(separator, separator_named, stems, named=False, known=known)
    require_stems(names, separator, known)
    stems = tuple(stem for stem in known if stem in names)
    return Wanted(separator, separator_named, stems, named=True, known=known)


def stored_of(store: ObjectStore, songs: Collection[str]) -> Mapping[str, Stored]:
    """Those of ``songs`` that have stems, each with what it has."""
    ordered = sorted(songs)
    with ThreadPoolExecutor(FOOTERS_AT_ONCE) as pool:
        found = list(pool.map(partial(_stored, store), ordered))
    return {song: stored for song, stored in zip(ordered, found, strict=True) if stored is not None}


def _stored(store: ObjectStore, song: str) -> Stored | None:
    """The song's stored stems; None if there is no readable file with stems."""
    try:
        lineage = read_lineage(store, STEMS, song)
    except ValueError:
        return None  # the run finds the damage too, and computes the file again
    if lineage is None or not lineage.model:
        return None
    params = json.loads(lineage.params or "{}")
    return Stored(lineage.model, stored_stems(lineage.model, params), chosen_stems(params) is not None)
