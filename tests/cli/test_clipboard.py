"""Which program reads the clipboard: the one of the display that there is."""

from pathlib import Path

import pytest

from llmcli.cli.clipboard import paste_command


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH, on Linux without a display."""
    for name in ("WAYLAND_DISPLAY", "DISPLAY", "WSL_DISTRO_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("wl-paste", "xclip", "xsel", "pbpaste"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    return tmp_path


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize(
    ("variables", "program"),
    [
        ((), None),
        (("DISPLAY",), "xclip"),
        (("DISPLAY", "WAYLAND_DISPLAY"), "wl-paste"),
        (("WSL_DISTRO_NAME",), None),
    ],
)
def test_it_is_that_of_the_display(
    variables: tuple[str, ...], program: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in variables:
        monkeypatch.setenv(name, ":0")
    command = paste_command()
    assert (command and command[0]) == program


def test_a_program_that_is_not_installed_is_passed_over(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    (programs / "xclip").unlink()
    assert paste_command() == ("xsel", "--clipboard", "--output")


@pytest.mark.usefixtures("programs")
def test_a_mac_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    assert paste_command() == ("pbpaste",)
