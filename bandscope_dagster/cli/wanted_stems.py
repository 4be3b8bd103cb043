"""The stems that ``bandscope separate`` is asked for, and the songs whose stored stems lack some of them."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from bandscope_dagster.separation.chosen_stems import chosen_stems, require_stems, stems_of, stored_stems
from bandscope_dagster.separation.presets import name_of
from bandscope_dagster.settings import Settings
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.lineage import read_lineage
from bandscope_dagster.storage.tables.schemas import STEMS


@dataclass(frozen=True, slots=True)
class Wanted:
    """The stems that a call needs of each song."""

    stems: tuple[str, ...]
    named: bool  # True if the call names them; False if they are those of the settings
    known: tuple[str, ...]  # all stems of the separator, in its order; empty if there is no such separator

    def lacking(self, store: ObjectStore, songs: Collection[str]) -> Mapping[str, tuple[str, ...]]:
        """Those of ``songs`` whose stored stems lack a wanted one, each with its stored stems.

        If no stems are named, songs of another separator are left as they are: their stems were all computed.
        """
        found: dict[str, tuple[str, ...]] = {}
        for song in songs:
            stored, chosen = _stored(store, song)
            if stored and not set(self.stems) <= set(stored) and (self.named or chosen):
                found[song] = stored
        return found

    def to_compute(self, again: Mapping[str, Sequence[str]]) -> tuple[str, ...] | None:
        """The stems to compute, so that the songs ``again`` keep what they have; None for those of the settings."""
        kept = {stem for stored in again.values() for stem in stored}
        if not self.named and kept <= set(self.stems):
            return None
        return tuple(stem for stem in self.known if stem in kept or stem in self.stems)


def wanted_stems(settings: Settings, names: Collection[str]) -> Wanted:
    """The stems in ``names``; if there are none, those of the settings.

    Raises:
        SettingsError: the separator of the settings has no such stem.
    """
    known = stems_of(settings.separator)
    if not names or not known:  # the run itself refuses an unknown separator
        return Wanted(settings.separation.stems or known, named=False, known=known)
    require_stems(names, name_of(settings.separator), known)
    return Wanted(tuple(stem for stem in known if stem in names), named=True, known=known)


def _stored(store: ObjectStore, song: str) -> tuple[tuple[str, ...], bool]:
    """The song's stored stems, and True if they are a choice; none if there is no readable file with stems."""
    try:
        lineage = read_lineage(store, STEMS, song)
    except ValueError:
        return (), False  # the run finds the damage too, and computes the file again
    if lineage is None or not lineage.model:
        return (), False
    params = json.loads(lineage.params or "{}")
    return stored_stems(lineage.model, params), chosen_stems(params) is not None
