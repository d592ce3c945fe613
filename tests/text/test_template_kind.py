"""What a chat template can do, found out by rendering it."""

import json
from pathlib import Path

import pytest

from llmcli.errors import CheckpointError
from llmcli.text.template_kind import TemplateKind, template_kind

PLAIN = "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}"
SYSTEM = "{% for m in messages %}{{ m.role }} {{ m.content }}{% endfor %}"
TOOLS = SYSTEM + "{% if tools %}{{ tools | tojson }}{% endif %}"
SWITCH = SYSTEM + "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"
ALWAYS = SYSTEM + "{% if add_generation_prompt %}<think>\n{% endif %}"


def folder_with(tmp_path: Path, template: object) -> Path:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    return tmp_path


@pytest.mark.parametrize(
    ("template", "kind"),
    [
        (PLAIN, TemplateKind(system=False, tools=False, thinking="no")),
        (SYSTEM, TemplateKind(system=True, tools=False, thinking="no")),
        (TOOLS, TemplateKind(system=True, tools=True, thinking="no")),
        (SWITCH, TemplateKind(system=True, tools=False, thinking="switch")),
        (ALWAYS, TemplateKind(system=True, tools=False, thinking="yes")),
        (
            [{"name": "default", "template": SYSTEM}, {"name": "tool_use", "template": TOOLS}],
            TemplateKind(system=True, tools=True, thinking="no"),
        ),
    ],
    ids=["plain", "system", "tools", "switch", "always", "by name"],
)
def test_what_a_template_writes_tells_what_it_can_do(tmp_path, template, kind):
    assert template_kind(folder_with(tmp_path, template)) == kind


def test_a_template_that_refuses_a_system_prompt_has_none(tmp_path):
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + SYSTEM
    kind = template_kind(folder_with(tmp_path, strict))
    assert kind is not None
    assert not kind.system


def test_a_model_without_a_template_has_no_kind(tmp_path):
    assert template_kind(tmp_path) is None


def test_a_template_of_another_form_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="chat_template must be"):
        template_kind(folder_with(tmp_path, 5))
