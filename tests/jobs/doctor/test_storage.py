"""Disks, the cache's health, folders and configuration files."""

import os
from pathlib import Path

import pytest

from llmcli.config import GIB, MIB
from llmcli.errors import UsageError
from llmcli.hub.health import CacheHealth
from llmcli.jobs.doctor.storage import (
    ConfigFiles,
    DiskFacts,
    check_cache,
    check_config_files,
    check_disk,
    check_folders,
    read_disk,
    read_folder,
)

WELL = CacheHealth(3, {}, (), {})
LINK = Path("/c/models--ada--story/snapshots/0123/model.safetensors")


@pytest.mark.parametrize(
    ("free", "status"), [(500 * GIB, "pass"), (10 * GIB, "pass"), (5 * GIB, "warn"), (200 * MIB, "fail")]
)
def test_a_disk_is_judged_by_what_is_free(free: int, status: str) -> None:
    finding = check_disk(DiskFacts(Path("/c"), free, 1000 * GIB))
    assert finding.status == status
    assert "/c" in finding.found
    assert ("HF_HUB_CACHE" in finding.fix) == (status != "pass")


def test_the_disk_of_a_folder_that_does_not_exist_yet_is_that_of_its_parent(tmp_path: Path) -> None:
    facts = read_disk(tmp_path / "a" / "b")
    assert facts.folder == tmp_path / "a" / "b"
    assert 0 < facts.free <= facts.total


def test_a_cache_without_faults_passes() -> None:
    assert check_cache(WELL).found == "3 models, nothing unfinished or broken"
    assert check_cache(CacheHealth(1, {}, (), {})).found.startswith("1 model,")


@pytest.mark.parametrize(
    ("health", "found", "model"),
    [
        (CacheHealth(3, {"ada/a": MIB}, (), {}), "1.0 MiB of unfinished downloads (ada/a)", "ada/a"),
        (CacheHealth(3, {}, (), {"ada/b": ("tokenizer.json",)}), "files are missing in ada/b", "ada/b"),
        (CacheHealth(3, {}, (LINK,), {}), "1 links to files that are gone", "ada/story"),
    ],
)
def test_what_is_half_there_is_a_warning_with_both_ways_out(
    health: CacheHealth, found: str, model: str
) -> None:
    finding = check_cache(health)
    assert finding.status == "warn"
    assert found in finding.found
    assert finding.fix == f"llmcli pull {model} completes it, llmcli rm {model} removes it"


def test_missing_files_are_named_in_the_details() -> None:
    finding = check_cache(CacheHealth(1, {}, (), {"ada/b": ("tokenizer.json", "config.json")}))
    assert finding.details == ("ada/b lacks tokenizer.json, config.json",)


def test_folders_that_do_not_exist_yet_are_fine_where_they_can_be_made(tmp_path: Path) -> None:
    finding = check_folders([read_folder(tmp_path / "a" / "b", "models"), read_folder(tmp_path, "logs")])
    assert (finding.status, finding.found) == ("pass", "2 folders can be written to")


def test_a_file_in_the_way_of_a_folder_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    finding = check_folders([read_folder(tmp_path / "file" / "sub", "logs")])
    assert finding.status == "warn"
    assert f"no place for logs: {tmp_path / 'file'} can not be written to" in finding.found


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_folder_is_a_warning(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        assert check_folders([read_folder(tmp_path / "models", "models")]).status == "warn"
    finally:
        tmp_path.chmod(0o700)


def prompts(folder: Path, file_mode: int, folder_mode: int = 0o755) -> str:
    """The status of a folder with a history of such permissions."""
    folder.chmod(folder_mode)
    (folder / "history").write_text("secret")
    (folder / "history").chmod(file_mode)
    return check_folders([read_folder(folder, "history", ("history",))]).status


def test_prompts_that_others_may_read_are_a_warning(tmp_path: Path) -> None:
    assert prompts(tmp_path, 0o644) == "warn"
    assert prompts(tmp_path, 0o600) == "pass"


def test_a_folder_that_lets_nobody_in_hides_what_is_in_it(tmp_path: Path) -> None:
    assert prompts(tmp_path, 0o644, 0o700) == "pass"


def test_without_configuration_files_the_places_are_named(tmp_path: Path) -> None:
    paths = (tmp_path / "config.toml", tmp_path / "llmcli.toml")
    finding = check_config_files(ConfigFiles(paths))
    assert (finding.status, finding.details) == ("pass", tuple(map(str, paths)))


def test_a_configuration_file_that_can_be_used_passes(tmp_path: Path) -> None:
    paths = (tmp_path / "config.toml", tmp_path / "llmcli.toml")
    paths[1].touch()
    finding = check_config_files(ConfigFiles(paths))
    assert (finding.status, finding.found) == ("pass", str(paths[1]))


@pytest.mark.parametrize(
    ("fix", "told"), [("leave one", "leave one"), ("", "correct it, or move the file away")]
)
def test_files_that_can_not_be_used_fail_with_what_helps(fix: str, told: str) -> None:
    error = UsageError("seed is set twice in x.toml", why="the value comes from x.toml", fix=fix)
    finding = check_config_files(ConfigFiles(error=error))
    assert (finding.status, finding.found, finding.fix) == ("fail", error.what, told)
    assert finding.details[0] == error.why


def test_files_that_could_not_be_looked_for_are_an_error_of_the_check() -> None:
    with pytest.raises(ImportError, match="broken"):
        check_config_files(ConfigFiles(error=ImportError("platformdirs is broken")))
