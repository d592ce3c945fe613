"""`hub/transfer.py`: resume, repair and refusal of one file."""

import hashlib
import os
from dataclasses import replace

import pytest

from llmcli.errors import CheckpointError
from llmcli.hub.failures import UnexpectedAnswerError
from llmcli.hub.transfer import MAX_FAILURES, RemoteFile, fetch_blob, partial_path, partial_size
from tests.fake_hub import Fault, digest_of

NAME = "model.safetensors"
CONTENT = os.urandom(1_000_000)


class Download:
    """One file of the fake hub, and the count of its bytes as a progress bar gets it."""

    def __init__(self, hub, settings, tmp_path, content=CONTENT, name=NAME):
        commit = hub.add("ada/model", {name: content})
        self.file = RemoteFile(name, len(content), digest_of(name, content))
        self.url = f"{hub.url}/ada/model/resolve/{commit}/{name}"
        self.blob = tmp_path / self.file.digest
        self.settings = settings
        self.num_bytes = 0

    def __call__(self):
        fetch_blob(self.file, self.url, self.blob, self.settings, self.count)
        return self.blob.read_bytes()

    def count(self, num_bytes):
        self.num_bytes += num_bytes


@pytest.fixture
def download(hub, settings, tmp_path):
    """A file of a megabyte to fetch."""
    return Download(hub, settings, tmp_path)


def ranges(hub):
    """Offsets at which the requests so far began."""
    return [int(request.headers.get("range", "bytes=0-")[6:-1]) for request in hub.requests]


def test_a_file_arrives_whole_and_leaves_no_part(hub, download):
    assert download() == CONTENT
    assert download.num_bytes == len(CONTENT)
    assert not partial_path(download.blob).exists()


def test_a_part_of_an_earlier_run_is_continued(hub, download):
    partial_path(download.blob).write_bytes(CONTENT[:777_777])
    assert partial_size(download.blob) == 777_777
    assert download() == CONTENT
    assert ranges(hub) == [777_777]


@pytest.mark.parametrize("after", [0, 1, 999_999])
def test_a_dropped_connection_is_taken_up_where_it_broke(hub, download, after):
    hub.fail(NAME, Fault("drop", after=after))
    assert download() == CONTENT
    assert ranges(hub) == [0, after]


def test_many_drops_are_survived_as_long_as_bytes_come(hub, download):
    hub.fail(NAME, *[Fault("drop", after=100_000)] * 8)
    assert download() == CONTENT
    assert len(hub.requests) == 9


def test_silence_in_the_middle_is_a_broken_connection(hub, download):
    download.settings = replace(download.settings, timeout_s=0.5)
    hub.fail(NAME, Fault("stall", after=300_000))
    assert download() == CONTENT
    assert set(ranges(hub)) == {0, 300_000}


def test_a_server_that_never_sends_is_given_up_and_the_part_is_kept(hub, download):
    partial_path(download.blob).write_bytes(CONTENT[:10])
    hub.fail(NAME, *[Fault("status", 503)] * MAX_FAILURES)
    with pytest.raises(Exception, match="503"):
        download()
    assert partial_size(download.blob) == 10
    assert download() == CONTENT


def test_a_server_that_ignores_ranges_sends_the_whole_file_again(hub, download):
    partial_path(download.blob).write_bytes(CONTENT[:10])
    hub.fail(NAME, Fault("ignore_range"))
    assert download() == CONTENT


def test_a_part_longer_than_the_file_is_thrown_away(hub, download):
    partial_path(download.blob).write_bytes(CONTENT + b"more")
    assert download() == CONTENT
    assert ranges(hub) == [0]


def test_a_part_of_something_else_is_found_out_by_its_hash_and_fetched_again(hub, download):
    partial_path(download.blob).write_bytes(b"\0" * 500_000)
    assert download() == CONTENT
    assert ranges(hub) == [500_000, 0]


def test_a_corrupt_byte_is_repaired_by_a_second_fetch(hub, download):
    hub.fail(NAME, Fault("corrupt"))
    assert download() == CONTENT
    assert download.num_bytes == len(CONTENT)


def test_a_file_that_stays_corrupt_is_an_error_with_both_hashes_and_nothing_visible(hub, download):
    hub.fail(NAME, Fault("corrupt"), Fault("corrupt"))
    wrong = hashlib.sha256(CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])).hexdigest()
    with pytest.raises(CheckpointError, match=f"{wrong}, the hub's is {download.file.digest}"):
        download()
    assert not download.blob.exists()
    assert not partial_path(download.blob).exists()


def test_a_small_file_is_checked_by_its_git_id(hub, settings, tmp_path):
    download = Download(hub, settings, tmp_path, b"{}", "config.json")
    hub.fail("config.json", Fault("corrupt"))
    assert len(download.file.digest) == 40
    assert download() == b"{}"
    assert len(hub.requests) == 2


def test_an_empty_file_needs_no_request(hub, settings, tmp_path):
    download = Download(hub, settings, tmp_path, b"", "tokenizer_config.json")
    assert download() == b""
    assert not hub.requests


def test_a_web_page_is_not_taken_for_the_file(hub, download):
    hub.fail(NAME, Fault("html"))
    with pytest.raises(UnexpectedAnswerError, match="web page"):
        download()
    assert partial_size(download.blob) == 0


def test_the_token_goes_to_the_hub_and_never_to_the_host_that_it_names(hub, download):
    hub.use_cdn = True
    download.settings = replace(download.settings, token="hf_secret")
    assert download() == CONTENT
    assert hub.requests[0].headers["authorization"] == "Bearer hf_secret"
    assert len(hub.cdn_requests) == 1
    assert "hf_secret" not in str(hub.cdn_requests)


def test_the_token_is_not_in_the_text_of_the_settings(settings):
    assert "hf_secret" not in repr(replace(settings, token="hf_secret"))
