"""`hub/download.py` against a hub on loopback, and against huggingface_hub's own reading of the cache."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from filelock import FileLock

from llmcli.errors import CheckpointError, ModelUnavailableError, OfflineError, UnsupportedModelError
from llmcli.hub import fetching
from llmcli.hub.download import files_to_fetch, find_cached, obtain
from llmcli.hub.names import HubId
from llmcli.hub.remote import MAX_TRIES, list_remote, needed_files
from llmcli.hub.transfer import MAX_FAILURES
from tests.fake_hub import Fault

ID = HubId("ada/model")
NEEDED = {
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "model.safetensors",
}


def test_only_what_llmcli_reads_is_fetched(hub, settings, files, notices):
    hub.add("ada/model", files)
    folder = obtain(ID, settings, notices)
    assert {path.name for path in folder.iterdir()} == NEEDED
    assert {name: (folder / name).read_bytes() for name in NEEDED} == {name: files[name] for name in NEEDED}
    assert not any(path.endswith((".py", ".bin", ".md")) or "original" in path for path in hub.paths())


@pytest.mark.parametrize(
    ("names", "weights"),
    [
        (["model.safetensors", "consolidated.safetensors"], ["model.safetensors"]),
        (["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"], None),
        (["gptq_model-4bit-128g.safetensors"], None),
        (["adapter_model.safetensors", "model.safetensors"], ["model.safetensors"]),
        (["onnx/model.safetensors", "../model.safetensors", "/model.safetensors"], []),
    ],
)
def test_one_set_of_weights_is_needed(names, weights):
    assert needed_files(names) == (names if weights is None else weights)


def test_the_hub_client_finds_what_was_fetched_without_a_network(hub, settings, files, notices):
    from huggingface_hub import snapshot_download

    commit = hub.add("ada/model", files)
    folder = obtain(ID, settings, notices)
    hub.requests.clear()
    assert snapshot_download("ada/model", cache_dir=settings.cache_dir, local_files_only=True) == str(folder)
    assert folder.name == commit
    assert not hub.requests


def test_what_the_hub_client_fetched_is_not_fetched_again(hub, settings, files, notices):
    from huggingface_hub import snapshot_download

    hub.add("ada/model", files)
    folder = snapshot_download("ada/model", cache_dir=settings.cache_dir, endpoint=hub.url, token=False)
    hub.requests.clear()
    assert str(obtain(ID, settings, notices)) == folder
    assert [path.split("?")[0] for path in hub.paths()] == ["/api/models/ada/model"]


def test_a_cached_branch_costs_one_request_and_a_cached_commit_none(hub, settings, files, notices):
    commit = hub.add("ada/model", files)
    folder = obtain(ID, settings, notices)
    hub.requests.clear()
    assert obtain(ID, settings, notices) == folder
    assert len(hub.requests) == 1
    assert obtain(HubId("ada/model", commit), settings, notices) == folder
    assert len(hub.requests) == 1


def test_a_branch_that_moved_fetches_only_what_changed(hub, settings, files, notices):
    hub.add("ada/model", files)
    old = obtain(ID, settings, notices)
    hub.add("ada/model", files | {"generation_config.json": b'{"top_k": 5}'})
    hub.requests.clear()
    new = obtain(ID, settings, notices)
    assert new != old
    assert (new / "generation_config.json").read_bytes() == b'{"top_k": 5}'
    assert [path.rsplit("/", 1)[1] for path in hub.paths()[1:]] == ["generation_config.json"]


def test_a_named_revision_is_fetched_and_kept_apart(hub, settings, files, notices):
    hub.add("ada/model", files)
    commit = hub.add("ada/model", files | {"config.json": b"{}"}, revision="v2/beta")
    folder = obtain(HubId("ada/model", "v2/beta"), settings, notices)
    assert folder.name == commit
    assert find_cached(ID, settings) == (None, [])
    assert find_cached(HubId("ada/model", "v2/beta"), settings) == (folder, [])


def test_offline_uses_the_cache_and_sends_nothing(hub, settings, files, notices):
    hub.add("ada/model", files)
    folder = obtain(ID, settings, notices)
    hub.requests.clear()
    assert obtain(ID, replace(settings, offline=True), notices) == folder
    assert not hub.requests


def test_offline_without_the_model_says_how_to_get_it(hub, settings, notices):
    with pytest.raises(OfflineError, match="not in the cache") as caught:
        obtain(ID, replace(settings, offline=True), notices)
    assert "llmcli pull ada/model" in str(caught.value)
    assert not hub.requests


def test_offline_with_a_part_of_the_model_names_what_is_missing(hub, settings, files, notices):
    hub.add("ada/model", files)
    folder = obtain(ID, settings, notices)
    (folder / "model.safetensors").unlink()
    with pytest.raises(OfflineError, match=r"not complete in the cache.*\*\.safetensors"):
        obtain(ID, replace(settings, offline=True), notices)


def test_a_missing_shard_makes_a_snapshot_incomplete(hub, settings, files, notices):
    index = b'{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}'
    shards = {"model-1.safetensors": b"1" * 99, "model-2.safetensors": b"2" * 99}
    files.pop("model.safetensors")
    hub.add("ada/model", files | shards | {"model.safetensors.index.json": index})
    folder = obtain(ID, settings, notices)
    assert find_cached(ID, settings) == (folder, [])
    (folder / "model-2.safetensors").unlink()
    assert find_cached(ID, settings) == (folder, ["model-2.safetensors"])


@pytest.mark.parametrize(
    "fault", [Fault("status", 500), Fault("status", 429), Fault("html"), Fault("stall"), Fault("status", 403)]
)
def test_a_cached_model_starts_when_the_hub_does_not_answer_well(hub, settings, files, notices, fault):
    hub.add("ada/model", files)
    folder = obtain(ID, settings, notices)
    hub.fail("/api/models/ada/model", *[fault] * MAX_TRIES)
    assert obtain(ID, replace(settings, timeout_s=0.5), notices) == folder
    assert "using the cached copy" in notices.text


def test_a_cached_model_starts_when_nothing_listens(hub, settings, files, notices):
    hub.add("ada/model", files)
    folder = obtain(ID, settings, notices)
    assert obtain(ID, replace(settings, endpoint="http://127.0.0.1:1"), notices) == folder
    assert "refused the connection; using the cached copy" in notices.text


def test_the_old_copy_serves_when_the_new_one_can_not_be_fetched(hub, settings, files, notices):
    hub.add("ada/model", files)
    old = obtain(ID, settings, notices)
    hub.add("ada/model", files | {"model.safetensors": b"new weights"})
    hub.fail("model.safetensors", Fault("status", 429))
    assert obtain(ID, settings, notices) == old
    assert "too many requests (429); using the cached copy" in notices.text
    assert obtain(ID, settings, notices) != old


def test_too_little_disk_is_told_before_a_byte_is_fetched(hub, settings, files, notices, monkeypatch):
    hub.add("ada/model", files)
    monkeypatch.setattr(fetching, "free_space", lambda folder: 1000)
    with pytest.raises(ModelUnavailableError, match=r"needs 29\d\.?\d* KiB more.*1000 B free"):
        obtain(ID, settings, notices)
    assert not any("resolve" in path for path in hub.paths())


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("pytorch_model.bin", "pickled weights only"),
        ("model.gguf", "format of model.gguf is not supported"),
        ("README.md", "no weights that llmcli reads"),
    ],
)
def test_a_repository_without_safetensors_is_refused_before_the_download(
    hub, settings, notices, weights, message
):
    hub.add("ada/model", {"config.json": b"{}", weights: b"x"})
    with pytest.raises(CheckpointError, match=message):
        obtain(ID, settings, notices)


def test_a_corrupt_file_in_the_cache_is_fetched_again(hub, settings, files, notices):
    hub.add("ada/model", files)
    folder = obtain(ID, settings, notices)
    blob = (folder / "model.safetensors").resolve()
    blob.write_bytes(b"\0" * len(files["model.safetensors"]))
    assert (obtain(ID, settings, notices) / "model.safetensors").read_bytes() == files["model.safetensors"]
    assert "damaged" in notices.text


def test_offline_a_corrupt_file_in_the_cache_is_an_error_with_both_hashes(hub, settings, files, notices):
    hub.add("ada/model", files)
    blob = (obtain(ID, settings, notices) / "model.safetensors").resolve()
    blob.write_bytes(b"\0" * len(files["model.safetensors"]))
    with pytest.raises(CheckpointError, match=f"sha256 is [0-9a-f]{{64}}, the hub's is {blob.name}"):
        obtain(ID, replace(settings, offline=True), notices)
    assert not blob.exists()


def test_a_link_out_of_the_cache_is_refused(hub, settings, files, notices, tmp_path):
    hub.add("ada/model", files)
    folder = obtain(ID, settings, notices)
    (folder / "config.json").unlink()
    (tmp_path / "secret").write_text("{}")
    (folder / "config.json").symlink_to(tmp_path / "secret")
    with pytest.raises(CheckpointError, match="leads out of the model cache"):
        obtain(ID, replace(settings, offline=True), notices)


def test_an_interrupted_fetch_says_how_to_resume_and_keeps_the_old_branch(
    hub, settings, files, notices, monkeypatch
):
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    hub.add("ada/model", files)
    old = obtain(ID, settings, notices)
    hub.add("ada/model", files | {"model.safetensors": b"new"})
    monkeypatch.setattr(fetching, "fetch_blob", interrupt)
    with pytest.raises(KeyboardInterrupt):
        obtain(ID, settings, notices)
    assert "same command again to resume" in notices.text
    assert find_cached(ID, settings) == (old, [])


def test_two_fetches_at_once_bring_each_file_once(hub, settings, files, notices):
    commit = hub.add("ada/model", files)
    with ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(lambda _: obtain(ID, settings, notices), range(2)))
    assert {folder.name for folder in folders} == {commit}
    assert sum(path.endswith("/model.safetensors") for path in hub.paths()) == 1


def test_what_another_process_fetches_is_waited_for_with_a_notice(hub, settings, files, notices):
    hub.add("ada/model", files)
    file = list_remote(ID, settings).files[-1]
    lock = FileLock(
        settings.cache_dir / ".locks" / "models--ada--model" / f"{file.digest}.lock", thread_local=False
    )
    lock.acquire()
    with ThreadPoolExecutor(1) as pool:
        fetched = pool.submit(
            obtain, ID, settings, lambda line: (notices(line), "waiting" in line and lock.release())
        )
        assert (fetched.result() / file.name).exists()
    assert f"another process is fetching {file.name}" in notices.text


def test_sizes_and_hashes_that_make_no_sense_are_refused(hub, settings, files, monkeypatch):
    hub.add("ada/model", files)
    monkeypatch.setattr("tests.fake_hub.digest_of", lambda name, content: "../../etc/passwd")
    with pytest.raises(ModelUnavailableError, match="not a hub's"):
        list_remote(ID, settings)


def test_the_plan_counts_what_is_cached(hub, settings, files, notices):
    hub.add("ada/model", files)
    assert {file.name for file in files_to_fetch(list_remote(ID, settings), settings)} == NEEDED
    obtain(ID, settings, notices)
    assert files_to_fetch(list_remote(ID, settings), settings) == []


def test_before_weights_are_fetched_the_caller_is_told_and_may_refuse(hub, settings, files, notices):
    def refuse(remote, settings):
        raise UnsupportedModelError(f"no {remote.hub_id}")

    hub.add("ada/model", files)
    with pytest.raises(UnsupportedModelError, match="no ada/model"):
        obtain(ID, settings, notices, refuse)
    assert not any("resolve" in path for path in hub.paths())
    folder = obtain(ID, settings, notices)
    hub.add("ada/model", files | {"generation_config.json": b'{"top_k": 5}'})
    assert obtain(ID, settings, notices, refuse) != folder  # no weights come, so nobody is asked


def test_a_broken_link_of_another_revision_does_not_stay_behind_a_damaged_blob(hub, settings, files, notices):
    hub.add("ada/model", files)
    hub.add("ada/model", files | {"config.json": b"{}"}, revision="v2")
    first, second = (obtain(HubId("ada/model", revision), settings, notices) for revision in ("main", "v2"))
    (first / "model.safetensors").resolve().write_bytes(b"\0" * len(files["model.safetensors"]))
    with pytest.raises(CheckpointError, match="is damaged"):
        obtain(ID, replace(settings, offline=True), notices)
    assert not (second / "model.safetensors").is_symlink()


def test_files_are_fetched_at_the_same_time(hub, settings, files, notices):
    """The one that stalls holds up none of the others."""
    hub.add("ada/model", files)
    hub.fail("model.safetensors", *[Fault("stall")] * MAX_FAILURES)
    with pytest.raises(ModelUnavailableError, match="stopped sending"):
        obtain(ID, replace(settings, timeout_s=0.3), notices)
    blobs = list(settings.repo_dir("ada/model").glob("blobs/*"))
    others = {files[name] for name in NEEDED - {"model.safetensors"}}  # equal ones share a blob
    assert {blob.read_bytes() for blob in blobs if blob.suffix != ".incomplete"} == others
