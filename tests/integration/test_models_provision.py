"""Files of a model are verified before they get their names, and failures leave nothing behind."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hub_server import CONTENTS, REPOSITORY, REVISION, Fault, HubServer, hub_model, run_hub_server, use_hub
from huggingface_hub import constants
from legacy_demucs import legacy_model, listed, pickled, save_legacy
from sharded_model import INDEX, SHARDS, UNWANTED, WANTED, sharded_model, write_files
from tiny_demucs import tiny_network

from bandscope_dagster.errors import ModelFileError
from bandscope_dagster.models.inventory import Model, find_model
from bandscope_dagster.models.pins import PINS, find_pins
from bandscope_dagster.models.provision import add, pull
from bandscope_dagster.models.store import inspect, read_verified, require

TINY = hub_model()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    with run_hub_server() as server:
        use_hub(server, monkeypatch, tmp_path)
        yield server


def how(placements: Iterator[object]) -> list[str]:
    return [f"{placed.file.name} {placed.how}" for placed in placements]


def visible(folder: Path) -> list[str]:
    """The names in a model's folder, without hidden ones."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def hidden_bytes(folder: Path) -> int:
    return sum(
        path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name not in CONTENTS
    )


def test_what_was_pulled_is_verified_and_complete(hub: HubServer, tmp_path: Path) -> None:
    assert how(pull(TINY, tmp_path)) == ["one.safetensors downloaded", "two.safetensors downloaded"]
    assert read_verified(TINY, tmp_path / "tiny").files == CONTENTS
    assert visible(tmp_path / "tiny") == sorted(CONTENTS) and hidden_bytes(tmp_path / "tiny") == 0


def test_what_is_there_and_right_is_not_asked_for_again(hub: HubServer, tmp_path: Path) -> None:
    list(pull(TINY, tmp_path))
    hub.requests.clear()
    assert how(pull(TINY, tmp_path)) == ["one.safetensors already there", "two.safetensors already there"]
    assert hub.requests == []


@pytest.mark.parametrize("damage", ["one bit", "cut off", "missing"])
def test_only_what_is_wrong_is_replaced(damage: str, hub: HubServer, tmp_path: Path) -> None:
    list(pull(TINY, tmp_path))
    hub.requests.clear()
    path, right = tmp_path / "tiny" / "two.safetensors", CONTENTS["two.safetensors"]
    path.unlink()
    if damage != "missing":
        path.write_bytes(right[:-1] + (b"" if damage == "cut off" else bytes([right[-1] ^ 1])))
    assert how(pull(TINY, tmp_path)) == ["one.safetensors already there", "two.safetensors downloaded"]
    assert hub.downloads() == ["two.safetensors"] and path.read_bytes() == right


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("wrong", "sent a two.safetensors that is not the one in the inventory: expected 200000 bytes with"),
        ("short", "OSError: Consistency check failed: file should be of size 200000 but has size 100000"),
        ("404", "RemoteEntryNotFoundError: 404 Client Error"),
        ("500", "HfHubHTTPError: Server error '500 Internal Server Error'"),
        ("dropped", "RemoteProtocolError: peer closed connection"),
    ],
)
def test_a_download_that_fails_leaves_nothing_and_the_next_pull_completes_it(
    fault: Fault, says: str, hub: HubServer, tmp_path: Path
) -> None:
    hub.faults["two.safetensors"] = fault
    with pytest.raises(ModelFileError) as failed:
        list(pull(TINY, tmp_path))
    message = str(failed.value)
    assert says in message and "two.safetensors" in message and REPOSITORY in message and REVISION in message
    if fault == "wrong":
        assert message.count("SHA-256") == 2 and TINY.files[1].sha256 in message
    else:
        assert "`bandscope models add tiny --from FILE`" in message
    assert visible(tmp_path / "tiny") == ["one.safetensors"] and hidden_bytes(tmp_path / "tiny") == 0

    hub.faults.clear()
    assert how(pull(TINY, tmp_path)) == ["one.safetensors already there", "two.safetensors downloaded"]


def test_a_wrong_download_does_not_replace_what_is_there(hub: HubServer, tmp_path: Path) -> None:
    """A wrong file stays too: someone may want to examine it."""
    path = tmp_path / "tiny" / "one.safetensors"
    path.parent.mkdir()
    path.write_bytes(b"mine")
    hub.faults["one.safetensors"] = "wrong"
    with pytest.raises(ModelFileError, match="It was deleted"):
        list(pull(TINY, tmp_path))
    assert path.read_bytes() == b"mine"


def test_a_pull_that_is_killed_leaves_nothing_under_a_final_name(hub: HubServer, tmp_path: Path) -> None:
    hub.faults["one.safetensors"] = "stalled"
    program = (
        "import sys; from pathlib import Path; from hub_server import hub_model; "
        "from bandscope_dagster.models.provision import pull; list(pull(hub_model(), Path(sys.argv[1])))"
    )
    support = Path(__file__).parents[1] / "support"
    environment = os.environ | {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(tmp_path / "home"),
    }
    environment |= {"PYTHONPATH": f"{support.parents[1]}{os.pathsep}{support}"}
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], env=environment, stderr=subprocess.DEVNULL
    ) as process:
        assert hub.half_sent.wait(30)
        process.kill()
    assert visible(tmp_path / "tiny") == []
    assert (tmp_path / "tiny" / ".incoming").is_dir()

    hub.faults.clear()
    list(pull(TINY, tmp_path))
    assert read_verified(TINY, tmp_path / "tiny").files == CONTENTS
    assert not (tmp_path / "tiny" / ".incoming").exists()


def test_two_pulls_at_once_download_each_file_once(hub: HubServer, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as threads:
        done = list(threads.map(lambda _: how(pull(TINY, tmp_path)), range(2)))
    assert sorted(hub.downloads()) == sorted(CONTENTS)
    assert sorted(done) == [
        [f"{name} already there" for name in CONTENTS],
        [f"{name} downloaded" for name in CONTENTS],
    ]


def test_without_a_network_it_fails_at_once(hub: HubServer, tmp_path: Path, monkeypatch) -> None:
    closed = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", closed)
    with pytest.raises(ModelFileError, match=r"ConnectError: .*`bandscope models add tiny --from FILE`"):
        list(pull(TINY, tmp_path))


def test_offline_mode_forbids_a_download_but_not_a_look_at_what_is_there(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(pull(TINY, tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert len(list(pull(TINY, tmp_path))) == 2
    (tmp_path / "tiny" / "one.safetensors").unlink()
    with pytest.raises(ModelFileError, match="HF_HUB_OFFLINE"):
        list(pull(TINY, tmp_path))


def test_a_folder_that_cannot_be_written_is_an_error_of_the_disk(hub: HubServer, tmp_path: Path) -> None:
    (tmp_path / "tiny").write_text("a file where the model's folder should be")
    with pytest.raises(OSError) as failed:
        list(pull(TINY, tmp_path))
    assert failed.value.errno == errno.EEXIST


@pytest.mark.parametrize("provide", [pull, lambda model, folder: add(model, [], folder)])
def test_an_embedded_model_is_neither_pulled_nor_added(provide, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="musicnn is part of the package"):
        list(provide(find_model("musicnn"), tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    """A folder with the files of the tiny model under other names, and other things."""
    folder = tmp_path / "copies"
    (folder / "within").mkdir(parents=True)
    for number, content in enumerate(CONTENTS.values()):
        (folder / f"download ({number})").write_bytes(content)
    (folder / "of the same size").write_bytes(bytes(200_000))
    (folder / "link to nothing").symlink_to(folder / "nothing")
    os.mkfifo(folder / "pipe")
    return folder


def test_files_are_recognised_by_their_content(copies: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    added = add(TINY, [copies / "download (1)", copies / "download (0)"], models)
    assert how(added) == ["two.safetensors copied", "one.safetensors copied"]
    assert read_verified(TINY, models / "tiny").files == CONTENTS
    assert (copies / "download (0)").exists()


def test_a_folder_is_searched_for_them(copies: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    assert len(how(add(TINY, [copies], models))) == 2
    assert visible(models / "tiny") == sorted(CONTENTS) and hidden_bytes(models / "tiny") == 0


def test_a_right_copy_replaces_a_wrong_file(copies: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "tiny" / "one.safetensors"
    wrong.parent.mkdir()
    wrong.write_bytes(b"wrong")
    list(add(TINY, [copies], tmp_path))
    assert wrong.read_bytes() == CONTENTS["one.safetensors"]


@pytest.mark.parametrize("content", [bytes(200_000), b"another size"])
def test_a_file_that_is_none_of_the_models_is_refused_with_all_digests(
    content: bytes, tmp_path: Path
) -> None:
    stranger = tmp_path / "one.safetensors"
    stranger.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"one\.safetensors is not a file of model tiny") as refused:
        list(add(TINY, [stranger], tmp_path / "models"))
    assert str(refused.value).count("SHA-256") == 3
    assert all(file.sha256 in str(refused.value) for file in TINY.files)
    assert visible(tmp_path / "models" / "tiny") == []


def test_what_is_still_missing_is_listed_and_the_rest_stays(copies: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"1 of the 2 files of model tiny are still missing") as lacking:
        list(add(TINY, [copies / "download (0)"], tmp_path))
    assert TINY.files[1].sha256 in str(lacking.value) and TINY.files[0].sha256 not in str(lacking.value)
    assert visible(tmp_path / "tiny") == ["one.safetensors"]
    assert how(add(TINY, [copies / "download (1)"], tmp_path)) == ["two.safetensors copied"]


def test_a_pipe_is_refused_and_not_waited_for(copies: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="not a regular file"):
        list(add(TINY, [copies / "pipe"], tmp_path))


@pytest.fixture
def pickle(tmp_path: Path) -> Path:
    return save_legacy(tiny_network(), tmp_path)


@pytest.fixture
def legacy(pickle: Path) -> Model:
    """A model whose inventory entry lists that pickle."""
    return legacy_model(listed(pickle.read_bytes(), pickle.name))


def test_a_listed_pickle_is_converted_and_verified_from_then_on(
    pickle: Path, legacy: Model, tmp_path: Path
) -> None:
    assert how(add(legacy, [pickle], tmp_path)) == ["f00dcafe.safetensors converted"]
    folder = tmp_path / "legacy"
    assert visible(folder) == ["converted.json", "f00dcafe.safetensors"]
    assert f"converted from {pickle.name}" in str(inspect(legacy, legacy.files[0], folder))
    verified = read_verified(legacy, folder)
    assert verified.sha256 not in (legacy.sha256, listed(pickle.read_bytes()).sha256)
    assert verified.sha256 == listed(verified.files["f00dcafe.safetensors"]).sha256
    assert how(add(legacy, [pickle], tmp_path)) == ["f00dcafe.safetensors already there"]


def test_a_converted_file_that_changes_later_is_refused_with_the_recorded_digest(
    pickle: Path, legacy: Model, tmp_path: Path
) -> None:
    list(add(legacy, [pickle], tmp_path))
    folder = tmp_path / "legacy"
    recorded = read_verified(legacy, folder).sha256
    path = folder / "f00dcafe.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(ModelFileError, match=f"if converted here, .*{recorded}"):
        read_verified(legacy, folder)
    list(add(legacy, [pickle], tmp_path))  # replaces it
    assert read_verified(legacy, folder).sha256 == recorded


def test_a_conversion_of_another_pickle_is_refused(pickle: Path, legacy: Model, tmp_path: Path) -> None:
    """The record names a pickle that the inventory does not list, or the model lists none at all."""
    list(add(legacy, [pickle], tmp_path))
    (file,) = legacy.files
    for other in (listed(b"another pickle"), None):
        with pytest.raises(ModelFileError, match="not the file in the inventory"):
            read_verified(replace(legacy, files=(replace(file, legacy=other),)), tmp_path / "legacy")


@pytest.mark.parametrize("record", [None, "", "{", "[1]", '{"f00dcafe.safetensors": {"bytes": 1}}'])
def test_a_converted_file_without_a_usable_record_is_refused(
    record: str | None, pickle: Path, legacy: Model, tmp_path: Path
) -> None:
    list(add(legacy, [pickle], tmp_path))
    path = tmp_path / "legacy" / "converted.json"
    path.unlink() if record is None else path.write_text(record)
    with pytest.raises(ModelFileError, match="not the file in the inventory"):
        read_verified(legacy, tmp_path / "legacy")


def test_a_pickle_that_is_not_listed_is_refused_before_it_is_read(pickle: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"converted only if its full digest is known; tiny has none"):
        list(add(TINY, [pickle], tmp_path))


def test_a_hostile_pickle_changes_nothing_even_if_it_is_listed(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "executed"),)

    (tmp_path / "hostile.th").write_bytes(pickled({"klass": Hostile()}))
    model = legacy_model(listed((tmp_path / "hostile.th").read_bytes(), "hostile.th"))
    with pytest.raises(ModelFileError, match="restricted unpickler refuses it"):
        list(add(model, [tmp_path / "hostile.th"], tmp_path))
    assert visible(tmp_path / "legacy") == [] and not (tmp_path / "executed").exists()


SHARDED = sharded_model()


@pytest.fixture
def sharded_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    with run_hub_server(WANTED | UNWANTED) as server:
        use_hub(server, monkeypatch, tmp_path)
        yield server


def downloaded(*names: str) -> list[str]:
    """The report of a pull that downloads these files and has the others already."""
    return [f"{name} {'downloaded' if name in names else 'already there'}" for name in sorted(WANTED)]


def test_of_a_model_that_is_not_listed_what_the_hub_states_is_pulled_and_pinned(
    sharded_hub: HubServer, tmp_path: Path
) -> None:
    assert how(pull(SHARDED, tmp_path)) == downloaded(*WANTED)
    folder = tmp_path / "sharded"
    assert visible(folder) == sorted([*WANTED, PINS]) and not (folder / ".incoming").exists()
    assert all((folder / name).read_bytes() == content for name, content in WANTED.items())
    assert {pin.revision for pin in find_pins(SHARDED, folder).values()} == {REVISION}
    require([SHARDED], tmp_path)
    assert sorted(sharded_hub.downloads()) == sorted(WANTED)  # each once, and no other file


def test_what_is_pinned_is_not_asked_for_again(sharded_hub: HubServer, tmp_path: Path) -> None:
    list(pull(SHARDED, tmp_path))
    sharded_hub.requests.clear()
    assert how(pull(SHARDED, tmp_path)) == downloaded()
    assert sharded_hub.listed == 1 and sharded_hub.requests == []


@pytest.mark.parametrize("fault", ["wrong", "dropped", "404"])
def test_a_pull_that_was_cut_off_goes_on_where_it_stopped(
    fault: Fault, sharded_hub: HubServer, tmp_path: Path
) -> None:
    sharded_hub.faults[SHARDS[1]] = fault
    with pytest.raises(ModelFileError, match=SHARDS[1]) as failed:
        list(pull(SHARDED, tmp_path))
    if fault == "wrong":
        digest = sharded_hub.listing[SHARDS[1]]["lfs"]["sha256"]
        assert f"the one that the hub's metadata states at revision {REVISION}: expected" in str(failed.value)
        assert digest in str(failed.value) and str(failed.value).count("SHA-256") == 2
    with pytest.raises(ModelFileError) as incomplete:
        require([SHARDED], tmp_path)
    rest = [*SHARDS[1:], INDEX]
    assert [line.split()[0] for line in str(incomplete.value).splitlines()] == rest

    sharded_hub.faults.clear()
    sharded_hub.requests.clear()
    assert how(pull(SHARDED, tmp_path)) == downloaded(*rest)
    assert sharded_hub.downloads() == rest and sharded_hub.listed == 1
    require([SHARDED], tmp_path)


def test_a_pull_that_fails_before_the_pins_are_known_changes_nothing(
    sharded_hub: HubServer, tmp_path: Path
) -> None:
    list(add(SHARDED, [write_files(WANTED, tmp_path / "given")], tmp_path))
    pins = find_pins(SHARDED, tmp_path / "sharded")
    sharded_hub.faults["config.json"] = "wrong"
    with pytest.raises(ModelFileError, match=r"sent a config\.json"):
        list(pull(SHARDED, tmp_path))
    assert find_pins(SHARDED, tmp_path / "sharded") == pins
    require([SHARDED], tmp_path)


def test_a_pull_takes_the_hubs_word_for_what_was_added_before(sharded_hub: HubServer, tmp_path: Path) -> None:
    changed = WANTED | {"config.json": b"{}"}
    list(add(SHARDED, [write_files(changed, tmp_path / "given")], tmp_path))
    assert how(pull(SHARDED, tmp_path)) == downloaded("config.json")
    assert {pin.revision for pin in find_pins(SHARDED, tmp_path / "sharded").values()} == {REVISION}


def test_a_disk_that_is_too_small_is_found_before_the_first_shard(
    sharded_hub: HubServer, tmp_path: Path
) -> None:
    sharded_hub.listing[SHARDS[2]]["lfs"]["size"] = 2**60
    with pytest.raises(ModelFileError, match=r"too full for model sharded: \d{19} bytes are needed"):
        list(pull(SHARDED, tmp_path))
    assert visible(tmp_path / "sharded") == [] and not set(SHARDS) & set(sharded_hub.downloads())


def test_a_shard_too_many_is_named_at_the_end_of_a_pull(sharded_hub: HubServer, tmp_path: Path) -> None:
    write_files({"model.safetensors": b"of an older revision"}, tmp_path / "sharded")
    with pytest.raises(ModelFileError, match=r"model\.safetensors is not a file of model sharded: delete"):
        list(pull(SHARDED, tmp_path))
    (tmp_path / "sharded" / "model.safetensors").unlink()
    assert how(pull(SHARDED, tmp_path)) == downloaded()
