"""The bank files: what each is made from. ``val-`` files are held out: training never sees their sounds."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import torch

from bandscope_dagster.tagging.instruments_network import SAMPLE_RATE
from training.bank import Take, write_bank
from training.classes import PROGRAMS, RECORDED, STYLES, SUSTAINED, Program
from training.kits import folder_kit, freepats_kit, hydrogen_kit, percussion_kit
from training.phrases import Rng, Song, phrase
from training.recordings import RecordedNotes
from training.scenes import Player, scene_takes
from training.soundfonts import Soundfont
from training.sources import Sources
from training.takes import (
    KIT_S,
    font_takes,
    kit_takes,
    negative_takes,
    patch_takes,
    recorded_takes,
    sounds_takes,
    voice_takes,
)
from training.voices import Speaker, recorded_speaker, synthetic_speaker

FONTS: Final = {
    "fluid": ("fluid-soundfont-gm", "usr/share/sounds/sf2/FluidR3_GM.sf2"),
    "musescore": ("musescore-general-soundfont", "usr/share/sounds/sf3/MuseScore_General_Full.sf3"),
    "generaluser": ("minuet-data", "usr/share/minuet/soundfonts/GeneralUser-v1.47.sf2"),
    "airfont": ("denemo-data", "usr/share/sounds/sf2/A320U.sf2"),
    "csound": ("csound-soundfont", "usr/share/sounds/sf2/sf_GMbank.sf2"),
    "val-timgm": ("timgm6mb-soundfont", "usr/share/sounds/sf2/TimGM6mb.sf2"),
}
HALF: Final = frozenset({"csound", "val-timgm"})  # fonts from which half the usual seconds are rendered
KITS: Final = {
    "kit-pearl": ("avldrums.lv2-soundfont", "usr/share/sounds/sf2/Black_Pearl_4_LV2.sf2"),
    "kit-zeppelin": ("avldrums.lv2-soundfont", "usr/share/sounds/sf2/Red_Zeppelin_4_LV2.sf2"),
}
HYDROGEN: Final = (
    "BJA_Pacific", "ColomboAcousticDrumkit", "ElectricEmpireKit", "ForzeeStereo", "HardElectro1", "Millo-Drums_v.1",
    "Millo_MultiLayered2", "Millo_MultiLayered3", "The Black Pearl 1.0", "rumpf_kit_z01_h2",
)  # fmt: skip
"""Drum kits. Left out: a kit of loops, one of effects."""

LANGUAGES: Final = (
    "ar",
    "cs",
    "da",
    "de",
    "en",
    "es",
    "he",
    "hu",
    "it",
    "nl",
    "ru",
    "uk",
)  # of KLettres, in training
SPEAKERS: Final = {
    "voices": (
        "asterisk en", "asterisk es", "asterisk it", "asterisk ru", "flite awb", "flite slt", "flite kal16",
        *(f"klettres {language}" for language in LANGUAGES),
    ),
    "val-voices": ("asterisk fr", "flite rms", "klettres fr", "klettres pt_BR"),
}  # fmt: skip
CLIPS: Final = 80  # recordings of one speaker
SMALLEST_PROMPT: Final = 16_000  # bytes: 2 s; shorter prompts are single words and tones
SCENES, SEPARATED = 700, 250
SOUND: Final = r"\.(wav|flac|aiff?)$"


class Origins:
    """Makes the takes of each bank file from the unpacked packages."""

    def __init__(self, sources: Sources, work: Path) -> None:
        """``work`` is a folder for temporary files."""
        self._sources = sources
        self._work = work
        self.makers: dict[str, Callable[[Rng], Iterator[Take]]] = {
            "scenes": self._scenes,
            "voices": lambda rng: voice_takes(self.speakers("voices", rng), rng),
            "freepats": lambda rng: patch_takes(self._freepats / "Tone_000", rng),
            "rec-kits": self._kits,
            "rec-percussion": self._percussion,
            "negatives": negative_takes,
            "val-voices": lambda rng: voice_takes(self.speakers("val-voices", rng), rng),
            "val-negatives": lambda rng: negative_takes(rng, each=40),
        }
        for name in FONTS:
            self.makers[name] = lambda rng, name=name: font_takes(
                self._font(name), rng, 0.5 if name in HALF else 1.0
            )
        for name, (package, path) in KITS.items():
            font = self._sources.folder(package) / path
            self.makers[name] = lambda rng, font=font: kit_takes(Soundfont(font), rng)
        for package in RECORDED:
            folder = self._sources.folder(package)
            name = "rec-" + package.replace("/", "-")
            self.makers[name] = lambda rng, package=package, folder=folder: recorded_takes(
                package, folder, rng
            )

    @property
    def _freepats(self) -> Path:
        return self._sources.folder("freepats") / "usr/share/midi/freepats"

    @property
    def _sonic_pi(self) -> Path:
        return self._sources.folder("sonic-pi-samples") / "usr/share/sonic-pi/samples"

    @property
    def _hydrogen(self) -> Path:
        return self._sources.folder("hydrogen-drumkits") / "usr/share/hydrogen/data/drumkits"

    def _font(self, name: str) -> Soundfont:
        package, path = FONTS[name]
        return Soundfont(self._sources.folder(package) / path)

    def speakers(self, name: str, rng: Rng) -> list[Speaker]:
        """The speakers of a bank file, those with at least five recordings that can be read."""
        found: list[Speaker] = []
        for speaker in SPEAKERS[name]:
            origin, voice = speaker.split()
            if origin == "flite":
                program = self._sources.folder("flite") / "usr/bin/flite"
                library = next((self._sources.folder("libflite1") / "usr/lib").glob("*-linux-gnu"))
                found.append(
                    synthetic_speaker(voice, program, library, SAMPLE_RATE, CLIPS // 2, self._work, rng)
                )
                continue
            if origin == "asterisk":
                folder = self._sources.folder(f"asterisk-core-sounds-{voice}-g722")
                paths = [path for path in folder.rglob("*.g722") if path.stat().st_size > SMALLEST_PROMPT]
            else:
                paths = list(
                    (self._sources.folder("klettres-data") / "usr/share/klettres" / voice).rglob("*.ogg")
                )
            found.append(recorded_speaker(speaker, sorted(paths), SAMPLE_RATE, CLIPS, rng))
        return [speaker for speaker in found if len(speaker.clips) > 4]

    def _kits(self, rng: Rng) -> Iterator[Take]:
        for name in HYDROGEN:
            yield from sounds_takes(
                "drums", name, hydrogen_kit(self._hydrogen / name, SAMPLE_RATE), rng, KIT_S
            )
        sonic = folder_kit(self._sonic_pi, r"^(bd|sn|drum)_", SAMPLE_RATE)
        yield from sounds_takes("drums", "sonic-pi", sonic, rng, KIT_S)
        yield from sounds_takes(
            "drums", "freepats", freepats_kit(self._freepats / "Drum_000", SAMPLE_RATE), rng, KIT_S
        )

    def _percussion(self, rng: Rng) -> Iterator[Take]:
        of_sonic_pi = r"^(tabla|perc|drum_cowbell|elec_(wood|triangle|bell|bong|tick))"
        kits = (
            ("freepats", freepats_kit(self._freepats / "Drum_000", SAMPLE_RATE), 240),
            ("afrique", percussion_kit(self._hydrogen / "circAfrique v4", SOUND, SAMPLE_RATE), 180),
            ("sonic-pi", percussion_kit(self._sonic_pi, of_sonic_pi, SAMPLE_RATE), 120),
            ("hands", percussion_kit(self._hydrogen / "Gimme A Hand 1.0", SOUND, SAMPLE_RATE), 60),
        )
        for kind, kit, seconds in kits:
            yield from sounds_takes("percussion", kind, kit, rng, seconds)

    def _scenes(self, rng: Rng) -> Iterator[Take]:
        yield from scene_takes(self._players(), self.speakers("voices", rng), rng, SCENES, SEPARATED)

    def _players(self) -> dict[str, list[Player]]:
        players: dict[str, list[Player]] = {}

        def of_font(font: Soundfont, name: str, program: Program) -> Player:
            def play(song: Song, seconds: float, rng: Rng):
                notes = phrase(rng, program.style, program.lowest, program.highest, seconds, song)
                return font.render(program, notes, seconds, SAMPLE_RATE, rng, name in SUSTAINED)

            return play

        def of_recordings(notes: RecordedNotes, name: str) -> Player:
            def play(song: Song, seconds: float, rng: Rng):
                made_up = phrase(rng, STYLES[name], notes.lowest, notes.highest, seconds, song)
                return notes.render(made_up, seconds, rng)

            return play

        for font_name in FONTS:
            if font_name.startswith("val-"):
                continue
            font = self._font(font_name)
            for name, programs in PROGRAMS.items():
                players.setdefault(name, []).extend(
                    of_font(font, name, program) for program in programs if font.has(program)
                )
        for package, name in RECORDED.items():
            notes = RecordedNotes(self._sources.folder(package), SAMPLE_RATE)
            players[name] += [of_recordings(notes, name)] * 2  # as likely as two presets
        for name in HYDROGEN:
            kit = hydrogen_kit(self._hydrogen / name, SAMPLE_RATE)
            players["drums"].append(
                lambda song, seconds, rng, kit=kit: kit.render(
                    phrase(rng, "drums", 0, 127, seconds, song), seconds, rng
                )
            )
        return players


def make_origin(job: tuple[Path, int, str]) -> tuple[str, float, float]:
    """Make one bank file: ``(work folder, seed, origin)`` → its name, seconds of audio, seconds taken.

    In this module, because a new process cannot import what is in ``__main__`` of a package.
    """
    torch.set_num_threads(1)
    folder, seed, name = job
    began = time.monotonic()
    rng = np.random.default_rng([seed, *name.encode()])
    takes = Origins(Sources(folder / "sources"), folder / "bank").makers[name](rng)
    seconds = write_bank(folder / "bank" / f"{name}.npz", takes)
    return name, seconds, time.monotonic() - began
