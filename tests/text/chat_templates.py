"""Chat templates in the styles that are in use, written for these tests."""

CHATML = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

INST = """\
{% if messages[0]['role'] == 'system' %}
{% set rest = messages[1:] %}{% set system = messages[0]['content'] %}
{% else %}
{% set rest = messages %}{% set system = false %}
{% endif %}
{% for message in rest %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Roles must alternate user/assistant/user/...') }}
{% endif %}
{% if loop.first and system %}
{% set text = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + message['content'] %}
{% else %}{% set text = message['content'] %}{% endif %}
{% if message['role'] == 'user' %}
{{- bos_token + '[INST] ' + text.strip() + ' [/INST]' -}}
{% else %}
{{- ' ' ~ text | trim ~ ' ' ~ eos_token -}}
{% endif %}
{% endfor %}
"""

HEADERS = """\
{{- bos_token }}
{%- if custom is defined and custom %}{{- custom }}{% endif %}
{%- for message in messages %}
    {%- set head = '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' %}
    {{- head + message.content | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

LINES = """\
{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{% generation %}
{{ '<|assistant|>\\n'  + message['content'] + eos_token }}
{% endgeneration %}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}
"""

THINK = """\
{{- bos_token }}
{%- for message in messages %}
    {%- if message.content is string %}{% set content = message.content %}
    {%- else %}{% set content = '' %}{% endif %}
    {%- if message.role == 'assistant' and '</think>' in content %}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
    {%- endif %}
    {{- '<|im_start|>' ~ message.role ~ '\\n' ~ content ~ '<|im_end|>\\n' }}
    {%- for call in message.tool_calls or [] %}
        {{- '<tool_call>' + call.function.arguments | tojson(indent=2) + '</tool_call>' }}
    {%- endfor %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}
"""

KITCHEN_SINK = """\
{%- macro card(message, first=false) -%}
    {{ message.role | upper }}{% if first %}!{% endif %}: {{ message.content | replace('a', 'A') | trim }}
{%- endmacro -%}
{%- set ns = namespace(count=0, names=[]) -%}
{%- for message in messages if message.content -%}
    {%- if loop.index > 8 %}{% break %}{% endif -%}
    {%- set ns.count = ns.count + message.content | length -%}
    {%- set ns.names = ns.names + [message.role] -%}
    {{ card(message, first=loop.first) }}{{ '-' * loop.index }}
{% endfor -%}
{{ ns.names | unique | list | tojson }} {{ ns.count // 2 }} {{ ns.names | join(', ') }}
{{ 2 ** 5 }} {{ ns.names }}
{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | list }}
{%- set block %}{% for i in range(3) %}{{ i }};{% endfor %}{% endset %}
{{ block | indent(2, first=true) }}{{ '%s/%d' | format('x', 3) }}{{ '%05.1f' % 2.25 }}
{{ '{}:{a}'.format(1, a=2) }}
{{ missing }}{{ missing | default('none') }}{{ bos_token }}
{{ (1, 'é', none, true) | tojson(ensure_ascii=true) }}
{{ {'b': '<&>"', 'a': [1.5]} | tojson(sort_keys=true, separators=(',', ':')) }}{{ dict(a=1).items() | list }}
{{ messages[-1].content[:5] ~ messages[-1]['content'].split()[0:2] }}
{{ ' '.join(['x', 'y']) ~ 'aXa'.replace('X', 'yy') }}
"""

STYLES = {
    "chatml": CHATML,
    "inst": INST,
    "headers": HEADERS,
    "lines": LINES,
    "think": THINK,
    "kitchen sink": KITCHEN_SINK,
}
