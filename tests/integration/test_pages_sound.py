"""The sound of a page: every source at its true level and length, in chunks that can be decoded alone."""

import numpy as np
import pytest
from page_songs import (
    OPUS_RATE,
    SAMPLE_RATE,
    Audio,
    clicks,
    decode,
    noise,
    page_of,
    sound_of,
    store_song,
    store_sound,
    tone,
)

from bandscope_dagster.audio.resample import StreamResampler
from bandscope_dagster.pages.opus import PACKET_FRAMES, OpusEncoder
from bandscope_dagster.pages.sound import CHUNK_PACKETS, SongSound
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore

PREROLL = 10  # packets, as in player.js


@pytest.fixture
def store(tmp_path) -> ObjectStore:
    return open_store(str(tmp_path / "store"))


def at_48k(audio: Audio) -> Audio:
    resampler = StreamResampler(SAMPLE_RATE, OPUS_RATE, channels=2)
    return np.concatenate([resampler.push(audio), resampler.finish()], axis=1)


def snr_db(audio: Audio, reference: Audio) -> float:
    return 10 * np.log10((reference**2).sum() / ((audio - reference) ** 2).sum())


@pytest.mark.parametrize("frames", [1, 441, 44_100, 441_000, 441_001])
def test_a_source_keeps_its_length(frames: int) -> None:
    encoder = OpusEncoder(64_000)
    packets = encoder.push(noise(10.1)[:, :frames]) + encoder.finish()
    decoded = len(packets) * PACKET_FRAMES - encoder.delay
    wanted = round(frames * OPUS_RATE / SAMPLE_RATE)
    assert wanted <= decoded < wanted + 2 * PACKET_FRAMES
    assert decode(packets).shape == (2, len(packets) * PACKET_FRAMES)


def test_every_source_of_a_page_has_the_level_and_the_shape_of_the_stored_one(store: ObjectStore) -> None:
    stems = {"vocals": tone(12, 440), "bass": tone(12, 110, 0.1)}
    mixture = store_song(store, "song", stems)
    sound = sound_of(page_of(store, "song"))
    assert sound.description["sources"] == ["mixture", "vocals", "bass"]
    for name, audio in {"mixture": mixture, **stems}.items():
        decoded, reference = sound.decoded(name), at_48k(audio)
        assert decoded.shape == reference.shape
        assert 10 * np.log10((decoded**2).sum() / (reference**2).sum()) == pytest.approx(0, abs=0.2)
        assert snr_db(decoded, reference) > 20, name


def test_block_gains_are_applied_and_a_loud_song_is_lowered_as_a_whole(store: ObjectStore) -> None:
    stems = {"loud": tone(3, 440, 1.6), "soft": tone(3, 220, 0.2)}
    store_song(store, "song", stems)
    sound = sound_of(page_of(store, "song"))
    peak = np.abs(stems["loud"] + stems["soft"]).max()
    assert sound.description["scale"] == pytest.approx(1 / peak, rel=1e-4)
    for name, audio in stems.items():
        middle = slice(OPUS_RATE, 2 * OPUS_RATE)
        level = np.sqrt((sound.decoded(name)[:, middle] ** 2).mean() / (at_48k(audio)[:, middle] ** 2).mean())
        assert level * peak == pytest.approx(1, abs=0.03), name


def test_a_chunk_that_is_decoded_alone_equals_the_whole_after_its_pre_roll(store: ObjectStore) -> None:
    store_song(store, "song", {"vocals": noise(11), "other": noise(11, seed=1)})
    sound = sound_of(page_of(store, "song"))
    assert [len(chunk[0]) for chunk in sound.chunks[:2]] == [CHUNK_PACKETS, CHUNK_PACKETS]
    whole = decode([packet for chunk in sound.chunks for packet in chunk[1]])
    first = CHUNK_PACKETS - PREROLL
    alone = decode(sound.chunks[0][1][first:] + sound.chunks[1][1])[:, PREROLL * PACKET_FRAMES :]
    assert snr_db(alone, whole[:, CHUNK_PACKETS * PACKET_FRAMES :][:, : alone.shape[1]]) > 40


def test_a_click_is_heard_in_every_source_at_its_own_time(store: ObjectStore) -> None:
    times = [0.5, 4.99, 7.0, 10.002]
    stems = {name: clicks(12, [time + shift for time in times]) for name, shift in (("a", 0), ("b", 0.1))}
    store_song(store, "song", stems)
    sound = sound_of(page_of(store, "song"))
    for name, shift in (("a", 0.0), ("b", 0.1)):
        audio = np.abs(sound.decoded(name)[0])
        for time in times:
            near = slice(round((time + shift - 0.04) * OPUS_RATE), round((time + shift + 0.05) * OPUS_RATE))
            heard = (
                near.start / OPUS_RATE
                + float(np.average(np.arange(near.stop - near.start), weights=audio[near] ** 2)) / OPUS_RATE
            )
            assert heard == pytest.approx(time + shift + 200 / SAMPLE_RATE, abs=0.001)


def test_a_block_without_one_of_the_stems_is_named(store: ObjectStore) -> None:
    store_sound(store, "song", noise(11), {"vocals": noise(11)})
    with pytest.raises(ValueError, match="song: block 0 has no drums; analyze the song again"):
        list(SongSound(store, "song", ["mixture", "vocals", "drums"], 11 * SAMPLE_RATE, 1.0).chunks())


def test_a_mixture_longer_than_its_stems_is_an_error(store: ObjectStore) -> None:
    store_sound(store, "song", noise(2), {"vocals": noise(2)})
    other = open_store(store.url + "-2")
    store_sound(other, "song", noise(3), {"vocals": noise(3)})
    with store.create("decoded_waveforms/song.parquet") as file:
        file.write(other.read("decoded_waveforms/song.parquet"))
    with pytest.raises(ValueError, match="differ in length; analyze the song again"):
        list(SongSound(store, "song", ["mixture", "vocals"], 3 * SAMPLE_RATE, 1.0).chunks())
