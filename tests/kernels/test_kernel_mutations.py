"""The mutations of scripts/mutate_kernels.py still apply; that tests notice each of them is what the script shows."""

import re
from pathlib import Path

import pytest

from scripts.kernel_mutations import MUTATIONS, Mutation

ROOT = Path(__file__).parents[2]
# What the script must at least break, each by a word in a mutation's name.
KINDS = (
    "mask",
    "zero point",
    "group",
    "scale",
    "causal edge",
    "block",
    "window",
    "splits",
    "soft cap",
    "summands",
    "top-p",
    "rope",
)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_its_text_is_in_the_kernel_once_and_its_tests_exist(mutation: Mutation) -> None:
    source = (ROOT / mutation.file).read_text("utf-8")
    assert mutation.applied_to(source) != source
    tests = (ROOT / mutation.tests[0]).read_text("utf-8")
    words = set(re.findall(r"[a-z]\w+", mutation.tests[2])) - {"triton", "and", "or"}
    assert [word for word in words if not re.search(rf"def test_\w*{word}", tests)] == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_mistake_is_made(kind: str) -> None:
    assert any(kind in mutation.name for mutation in MUTATIONS)


def test_a_text_that_is_gone_or_there_twice_is_told() -> None:
    mutation = Mutation("off by one", "a.py", "x < n", "x <= n", ())
    assert mutation.applied_to("if x < n:") == "if x <= n:"
    for source in ("if x > n:", "x < n or x < n"):
        with pytest.raises(ValueError, match=r"off by one: a\.py has the text \d times, not once: 'x < n'"):
            mutation.applied_to(source)
