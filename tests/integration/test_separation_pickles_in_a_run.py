"""SCNet and the RoFormers through the whole graph: from a published pickle and an upload to stems in Parquet."""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from audio_files import LIMITS
from instances import new_instance
from platforms import Platform, local_settings, song_bytes
from tiny_chunked import TINY, checkpoint, published_inference, tiny_model

from bandscope_dagster.audio.decode import decode
from bandscope_dagster.audio.flac import decode_flac
from bandscope_dagster.models.provision import add
from bandscope_dagster.separation import registry
from bandscope_dagster.storage.tables.lineage import read_lineage
from bandscope_dagster.storage.tables.schemas import STEMS


@pytest.mark.parametrize("name", TINY)
def test_the_stored_stems_equal_the_published_inference(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = checkpoint(TINY[name])
    (tmp_path / "tiny.ckpt").write_bytes(content)
    model = tiny_model(name, content)
    list(add(model, [tmp_path / "tiny.ckpt"], tmp_path / "models"))
    monkeypatch.setattr(registry, "find_model", lambda _: model)
    settings = local_settings(
        tmp_path / "store", separator=name, models_folder=str(tmp_path / "models"), batch=2, flac_bits=24
    )
    with new_instance() as instance:
        platform = Platform(settings, instance)
        uploads = {"long.wav": song_bytes(1, 4.0), "short.wav": song_bytes(2, 1.0)}
        ids = platform.upload(uploads)
        assert platform.materialize(["songs", "decoded_waveforms", "stems", "stem_instrument_tags"]).success
        for song, data in uploads.items():
            mixture = np.concatenate(list(decode(io.BytesIO(data), LIMITS)), axis=1)
            rows = platform.table("stems").filter(song_id=ids[song])
            assert set(rows["model"]) == {name} and set(rows["error"]) == {None}
            wanted = published_inference(TINY[name], mixture)
            for stem, expected in zip(TINY[name].stems, wanted, strict=True):
                blocks = rows.filter(stem=stem).sort("block").iter_rows(named=True)
                stored = [decode_flac(row["audio"]["bytes"], row["gain"]) for row in blocks]
                level = max(1.0, float(np.abs(expected).max()))  # of 24 bits
                np.testing.assert_allclose(
                    np.concatenate(stored, axis=1), expected, rtol=0, atol=2e-6 * level
                )
        lineage = read_lineage(platform.store, STEMS, ids["long.wav"])
        assert lineage is not None
        converted = (tmp_path / "models" / name / f"{name}.safetensors").read_bytes()
        assert lineage.model_sha256 == hashlib.sha256(converted).hexdigest()
        assert json.loads(lineage.params)["segment_frames"] == TINY[name].chunks.frames
