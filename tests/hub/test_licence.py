"""What a folder tells of its model's licence."""

from pathlib import Path

from llmcli.hub.licence import card_fields, licence_text


def test_the_licence_is_its_file_else_what_the_head_of_the_card_names(tmp_path: Path) -> None:
    assert licence_text(tmp_path) is None
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\n---\nlicense: none of this\n")
    assert licence_text(tmp_path) == "apache-2.0"
    (tmp_path / "LICENSE.txt").write_text("do as you like")
    assert licence_text(tmp_path) == "do as you like"


def test_a_licence_of_the_makers_own_goes_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\ntags:\n- x\nlicense: other\nlicense_name: llama3\n---\n")
    assert card_fields(tmp_path) == {"license": "other", "license_name": "llama3"}
    assert licence_text(tmp_path) == "llama3"


def test_what_stands_below_the_head_is_no_field(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\ntags: []\n---\nlicense: mit\n")
    assert card_fields(tmp_path) == {}
    (tmp_path / "README.md").write_text("# A model\nlicense: mit\n")
    assert card_fields(tmp_path) == {}


def test_a_folder_by_the_name_of_a_licence_is_none(tmp_path: Path) -> None:
    (tmp_path / "LICENSE").mkdir()
    assert licence_text(tmp_path) is None
