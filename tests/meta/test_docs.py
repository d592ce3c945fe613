"""What the pages in docs/ point at exists."""

import re

import pytest

from tests.meta.source_tree import ROOT

PAGES = sorted((ROOT / "docs").glob("*.md"))
# `folder/file` in backticks, from the root; ](link) from the page's own folder.
PATHS = re.compile(r"`(?:python |bash )?((?:kernels|llmcli|scripts|tests|benchmarks|docs)/[\w./]*)[^`]*`")
LINKS = re.compile(r"\]\((?!https?:|#)([^)#]+)")
OPERATIONS = sorted(path.parent for path in (ROOT / "kernels" / "llmcli_kernels").glob("*/reference.py"))
SOURCE = re.compile(r"arXiv|et al\.|https://|AutoAWQ|\(\w[^()]*, (19|20)\d\d\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_is_there(page) -> None:
    text = page.read_text("utf-8")
    named = [ROOT / path for path in PATHS.findall(text)] + [
        page.parent / link for link in LINKS.findall(text)
    ]
    assert len(named) > 2
    assert [str(path) for path in named if not path.exists()] == []


@pytest.mark.parametrize("folder", OPERATIONS, ids=lambda folder: folder.name)
def test_every_operation_tells_how_its_gpu_kernel_works_and_where_it_comes_from(folder) -> None:
    text = (folder / "README.md").read_text("utf-8")
    assert "triton" in text.lower()
    assert SOURCE.search(text), "a paper, a format or a repository"
