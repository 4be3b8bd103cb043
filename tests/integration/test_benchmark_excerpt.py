"""The tagging benchmark: a complete run of an embedded tagger on a real excerpt."""

import json

import pytest

from benchmarks.tagging import main


def test_our_own_tagger_finds_the_drums_and_a_bass_in_their_stems_and_in_the_mixture_and_nowhere_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["--device", "cpu"])
    table = capsys.readouterr().out
    assert "bandscope-instruments on cpu: 4 files" in table and "of the windows, at least 3" in table
    by_name = {line.split()[0]: line.split()[1:] for line in table.splitlines() if line[:1].isalpha()}
    for name in ("bass", "drums"):
        assert by_name[name] == ["1.000", "1.000", "1.000", "1.000", "2"], name


def test_musicnn_is_judged_on_the_excerpt(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--device", "cpu", "--tagger", "musicnn"])
    table, last = capsys.readouterr().out.strip().rsplit("\n", 1)
    found = json.loads(last)
    assert list(found) == ["macro_f1", "micro_f1", "average_precision", "realtime_factor"]
    assert "musicnn on cpu: 4 files, 24.3 s of audio, present from 0.2" in table
    by_name = {line.split()[0]: line.split()[1:] for line in table.splitlines() if line[:1].isalpha()}
    # musicnn has no label for bass. Drums and vocals are in the mixture and in their own stem.
    assert by_name["bass"][:3] == ["0.000"] * 3
    assert [by_name[name][-1] for name in ("bass", "drums", "vocals")] == ["2", "2", "2"]
    assert "musicnn never names bass" in table
    # Found as in the catalogs: in both files with vocals, and in the drums alone.
    assert [by_name[name][:2] for name in ("drums", "vocals")] == [["1.000", "0.500"], ["1.000", "1.000"]]
    assert 0 < found["micro_f1"] < 1 and found["realtime_factor"] > 0
