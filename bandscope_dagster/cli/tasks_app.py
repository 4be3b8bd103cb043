"""The commands for what people come with: ``separate``, ``find``, ``export``; each imports its module when it runs."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from bandscope_dagster.cli.opened import settings_and_store
from bandscope_dagster.cli.terminal import console, print_error

Format = Annotated[Literal["wav", "flac", "mp3"], typer.Option("--format", help="Format of the audio files.")]
Stems = Annotated[
    list[str] | None,
    typer.Option("--stem", "--stems", help="Only these stems, such as vocals,drums. Repeatable."),
]


def separate(
    songs: Annotated[list[str], typer.Argument(help="Audio files, or folders of them.")],
    to: Annotated[Path, typer.Option(help="Folder to write to.")],
    stem: Stems = None,
    without: Annotated[
        list[str] | None, typer.Option(help="Write the mixture without this stem. Repeatable.")
    ] = None,
    audio_format: Format = "wav",
) -> None:
    """Separate files into stems: upload them, process them, and write `Artist - Title (stem).wav` into one folder.

    It uses the same store as all other commands, so that a song is computed once. Of a new song, only the stems that
    --stem and --without name are computed. The instruments are printed.

    Exits with 1 if a file was left out, or a song failed or was rejected.
    """
    from bandscope_dagster.allocator import restart_without_thread_caches

    restart_without_thread_caches()
    from bandscope_dagster.cli.separate import separate_files

    settings, store = settings_and_store()
    stems = _names(stem)
    done = separate_files(settings, store, console, songs, to, audio_format, stems, _names(without))
    raise typer.Exit(0 if done else 1)


def find(
    present: Annotated[
        list[str] | None,
        typer.Option("--with", help="An instrument or a family that is heard, such as guitar. Repeatable."),
    ] = None,
    absent: Annotated[
        list[str] | None, typer.Option("--without", help="One that is not heard. Repeatable.")
    ] = None,
    source: Annotated[
        str | None, typer.Option("--in", help="Only in the mixture, or in this stem. Default: in any.")
    ] = None,
    min_seconds: Annotated[
        float, typer.Option(min=0, help="Each --with is heard for at least so long in one source.")
    ] = 0.0,
    longer: Annotated[float | None, typer.Option(help="Only songs longer than this, in seconds.")] = None,
    shorter: Annotated[float | None, typer.Option(help="Only songs shorter than this, in seconds.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find songs by the instruments that are heard in them."""
    from bandscope_dagster.cli.find import Wanted
    from bandscope_dagster.cli.find import find as find_wanted

    _, store = settings_and_store()
    wanted = Wanted(present or (), absent or (), source, min_seconds, longer, shorter)
    find_wanted(store, console, wanted, as_json=as_json)


def export(
    to: Annotated[Path, typer.Option(help="Folder to write to. Each song gets a subfolder, unless --flat.")],
    songs: Annotated[
        list[str] | None,
        typer.Argument(help="Ids, file names or titles of songs, parts of them, or globs such as 'live*'."),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            help='Only songs that match this SQL condition on song_catalog, such as "duration_s < 100".'
        ),
    ] = None,
    audio_format: Annotated[
        Literal["wav", "flac", "mp3", "aac", "alac"] | None,
        typer.Option("--format", help="wav (default), flac or mp3; for --stem-file aac (default) or alac."),
    ] = None,
    bits: Annotated[
        Literal["16", "24", "32f"] | None,
        typer.Option(
            help="Bits per sample. Default: 32f for wav (32-bit float, which never clips), 24 for flac, 16 for alac."
        ),
    ] = None,
    normalise: Annotated[
        float | None,
        typer.Option(
            min=-70,
            max=0,
            help="Target loudness of the mixture in LUFS. All stems of a song get the same gain.",
        ),
    ] = None,
    mixture: Annotated[bool, typer.Option("--mixture", help="Also write the mixture.")] = False,
    flat: Annotated[
        bool,
        typer.Option("--flat", help="All files in one folder: `Artist - Title (stem).wav`."),
    ] = False,
    stem: Annotated[
        list[str] | None,
        typer.Option(
            "--stem", "--stems", help="Only these stems, such as vocals,drums; implies --flat. Repeatable."
        ),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(
            help="The mixture without this stem; implies --flat. Several: repeat it, or use commas."
        ),
    ] = None,
    lists: Annotated[
        bool,
        typer.Option("--lists", help="Also write instruments.csv, and export.json with what each file is."),
    ] = False,
    stem_file: Annotated[
        bool,
        typer.Option(
            "--stem-file",
            help="Only `Artist - Title.stem.mp4` for Traktor and Mixxx: mixture, drums, bass, other and vocals.",
        ),
    ] = False,
) -> None:
    """Write the stems of songs as audio files. Existing files are kept.

    With --flat, files of the same name are replaced. Rejected songs are skipped.

    Exits with 1 if a song failed, such as one without stems, or if a pattern matches no song; the other songs are
    written.
    """
    from bandscope_dagster.cli.export import Flat, select_songs
    from bandscope_dagster.cli.export import export as export_songs
    from bandscope_dagster.exporting.encodings import find_encoding
    from bandscope_dagster.exporting.song_export import ExportOptions

    chosen = audio_format or ("aac" if stem_file else "wav")
    if stem_file != (chosen in ("aac", "alac")):
        raise typer.BadParameter("aac and alac are the formats of --stem-file, the others are not")
    if stem_file and (stem or without or mixture):
        raise typer.BadParameter(
            "a stem file always has the mixture, drums, bass, other and vocals: omit --stem, --without and --mixture"
        )
    options = ExportOptions(find_encoding(chosen, bits), normalise, mixture, lists)
    _, store = settings_and_store()
    found, missed = select_songs(store, songs or [], where)
    for error in missed:
        print_error(str(error))
    in_one = Flat(_names(stem), _names(without), stem_file) if flat or stem or without or stem_file else None
    if in_one is not None and lists:
        raise typer.BadParameter(
            "--lists needs a folder for each song: omit --flat, --stem, --without, --stem-file"
        )
    failed = export_songs(store, console, found, to, options, in_one, bits)
    raise typer.Exit(1 if failed or missed else 0)


def _names(given: list[str] | None) -> list[str]:
    """The names in an option that takes several, with commas between them."""
    return [name for each in given or () for text in each.split(",") if (name := text.strip())]
