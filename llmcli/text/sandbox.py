"""Runs a Jinja template from a stranger: sandboxed, without loader, with a limit on time, work and output.

Owns the Jinja environment. Knows nothing of chats or tokens. Called by `text/chat_template.py` only.

Jinja's sandbox keeps a template away from Python's internals, but lets it loop and grow strings without end.
Here every loop turn and call checks a deadline, and every operation that can make a large value is charged to
a budget before or as it runs. What is not charged is single operations that are linear in values already paid
for; comparing nested lists built to share their parts is the known exception.
"""

import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import do_indent, make_attrgetter
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_SECONDS = 1.0
MAX_TEXT = 4 * 2**20
MAX_WORK = 64 * 2**20
MAX_INTEGER = 10**6
_MAX_FORMAT = 256

# Each makes a large value from a small number, and no chat template has use for it.
_REFUSED_FILTERS = ("batch", "center", "random", "slice", "urlize", "wordwrap", "xmlattr")
_REFUSED_METHODS = ("center", "encode", "expandtabs", "ljust", "rjust", "translate", "zfill")
_RISKY_FORMAT = re.compile(r"\d{4}|%[^a-zA-Z%]*\*|\{[^{}]*:[^{}]*\{")


class TemplateLimitError(jinja2.TemplateRuntimeError):
    """The template wants more time, text or work than it may have."""


class TemplateRefusal(jinja2.TemplateError):
    """The template called `raise_exception`."""


class Budget:
    """What one rendering may still use: CPU seconds of its thread (a busy machine is not the template's
    fault), and characters or list items made."""

    def __init__(self) -> None:
        self._deadline = 0.0
        self._work = 0

    def start(self) -> None:
        self._deadline = time.thread_time() + MAX_SECONDS
        self._work = 0

    def tick(self) -> None:
        if time.thread_time() > self._deadline:
            raise TemplateLimitError(f"takes longer than {MAX_SECONDS:g} s")

    def spend(self, size: int) -> None:
        """Pay for a value of `size` characters or items."""
        self.tick()
        self._work += size
        if size > MAX_TEXT:
            raise TemplateLimitError(
                f"makes a value of {size:,} characters or items, at most {MAX_TEXT:,} are allowed"
            )
        if self._work > MAX_WORK:
            raise TemplateLimitError(f"makes more than {MAX_WORK:,} characters or items in all")


class SandboxedTemplate:
    """One template source, compiled at its first use; one rendering at a time.

    Raises (from `render`): any jinja2 error, or what Python raises inside the template; TemplateLimitError
    and TemplateRefusal as above.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._environment = _Environment()
        self._template: jinja2.Template | None = None
        self._lock = threading.Lock()

    def render(self, variables: Mapping[str, Any]) -> str:
        with self._lock:
            self._environment.budget.start()
            return self._environment.concat(self._compiled().generate(**variables))

    def compile(self) -> None:
        """Raise now what is wrong with the source."""
        with self._lock:
            self._environment.budget.start()
            self._compiled()

    def _compiled(self) -> jinja2.Template:
        if self._template is None:
            self._template = self._environment.from_string(self._source)
        return self._template


def template_line(error: BaseException) -> int | None:
    """The line of the template at which `error` arose, counted from 1, if it is known."""
    if isinstance(error, jinja2.TemplateSyntaxError):
        return error.lineno
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


class _Generation(Extension):
    """`{% generation %}…{% endgeneration %}` marks what an assistant wrote, for training; here it marks
    nothing."""

    tags = {"generation"}  # noqa: RUF012 - the base class declares it so

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class _MeteredCode(CodeGenerator):
    """`a ~ b` as a call of the environment, which Jinja compiles to a plain join."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.concat_values((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja's immutable sandbox with what chat templates may expect, and with every large operation paid
    for."""

    code_generator_class = _MeteredCode
    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self) -> None:
        self.budget = Budget()
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_Generation, loopcontrols],
            finalize=self.finalize_value,
        )
        for name in _REFUSED_FILTERS:
            del self.filters[name]
        self.filters.update(
            tojson=self._to_json,
            replace=self._replace,
            join=self._join,
            indent=self._indent,
            format=self._format,
            string=self.text_of,
        )
        del self.globals["lipsum"]
        self.globals.update(raise_exception=_refuse, strftime_now=_strftime_now)

    def concat(self, parts: Iterable[str]) -> str:
        """Joins the output of the template, of a macro, or of a block that is set."""
        kept: list[str] = []
        size = 0
        for part in parts:
            size += len(part)
            self.budget.tick()
            if size > MAX_TEXT:
                raise TemplateLimitError(f"writes more than {MAX_TEXT:,} characters")
            kept.append(part)
        self.budget.spend(size)
        return "".join(kept)

    def concat_values(self, values: Iterable[Any]) -> str:
        return self.concat([self.text_of(value) for value in values])

    def finalize_value(self, value: Any) -> Any:
        return self.text_of(value) if isinstance(value, (list, tuple, dict)) else value

    def text_of(self, value: Any) -> str:
        """str(value); a container is measured first, for one that shares its parts can be far longer than it
        is big."""
        stack = [value]
        while stack:
            item = stack.pop()
            if isinstance(item, (list, tuple, dict)):
                self.budget.spend(len(item))
                stack.extend([*item.keys(), *item.values()] if isinstance(item, dict) else item)
            elif isinstance(item, str) and item is not value:
                self.budget.spend(len(item))
        return str(value)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in tree.find_all(nodes.For):
            tick = nodes.Call(nodes.EnvironmentAttribute("tick"), [], [], None, None)
            loop.body.insert(0, nodes.ExprStmt(tick).set_lineno(loop.lineno).set_environment(self))
        return tree

    def tick(self) -> None:
        self.budget.tick()

    def call(self, context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Every call that a template makes."""
        self.budget.tick()
        for value in (*args, *kwargs.values()):
            if isinstance(value, int) and abs(value) > MAX_INTEGER:
                raise TemplateLimitError(f"calls a function with a number beyond {MAX_INTEGER:,}")
        owner = getattr(function, "__self__", None)
        if isinstance(owner, str) and function.__name__ == "replace" and len(args) >= 2:
            self._charge_replace(owner, str(args[0]), str(args[1]))
        if isinstance(owner, str) and function.__name__ == "join" and args:
            args = (self._charge_join(owner, args[0]),)
        return super().call(context, function, *args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        sizes = [len(side) for side in (left, right) if isinstance(side, (str, list, tuple))]
        counts = [side for side in (left, right) if isinstance(side, int)]
        if operator == "%" and isinstance(left, str):
            self._charge_format(left, right)
        elif operator == "+":
            self.budget.spend(sum(sizes))
        elif operator == "**" and (sizes or any(abs(count) > 64 for count in counts)):
            raise TemplateLimitError("takes a power of or by a number above 64")
        elif operator == "*" and sizes and counts:
            self.budget.spend(sizes[0] * max(counts[0], 0))
        elif operator == "*" and any(abs(count) > MAX_INTEGER for count in counts):
            raise TemplateLimitError(f"multiplies a number beyond {MAX_INTEGER:,}")
        return super().call_binop(context, operator, left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, (str, bytes)) and attr in _REFUSED_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None
        text = value.__self__

        def metered(*args: Any, **kwargs: Any) -> str:
            self._charge_format(text, (args, kwargs))
            return wrapped(*args, **kwargs)

        return metered

    def _charge_format(self, text: str, values: Any) -> None:
        _check_format(text)
        self.budget.spend(len(text) + (text.count("%") + text.count("{")) * len(self.text_of(values)))

    def _charge_replace(self, text: str, old: str, new: str) -> None:
        self.budget.spend(len(text) + text.count(old) * len(new))

    def _charge_join(self, separator: str, items: Iterable[Any]) -> list[Any]:
        taken = list(items)
        self.budget.spend(
            len(separator) * len(taken) + sum(len(item) for item in taken if isinstance(item, str))
        )
        return taken

    def _replace(self, text: Any, old: Any, new: Any, count: int | None = None) -> str:
        text, old, new = self.text_of(text), str(old), str(new)
        self._charge_replace(text, old, new)
        return str(text.replace(old, new, -1 if count is None else count))

    def _join(self, items: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
        if attribute is not None:
            items = map(make_attrgetter(self, attribute), items)
        texts = self._charge_join(str(d), [self.text_of(item) for item in items])
        return str(d).join(texts)

    def _indent(self, text: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
        text = self.text_of(text)
        if len(str(width)) > 16 or (isinstance(width, int) and width > 64):
            raise TemplateLimitError("indents by more than 64 columns")
        self.budget.spend(len(text) + 64 * text.count("\n"))
        return do_indent(text, width, first, blank)

    def _format(self, text: Any, *args: Any, **kwargs: Any) -> str:
        text = self.text_of(text)
        self._charge_format(text, kwargs or args)
        return str(text % (kwargs or args))

    def _to_json(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | str | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        """JSON as chat templates expect it, with no HTML escapes; Jinja's own filter has them."""
        if any(len(str(option)) > 16 for option in (indent, *(separators or ()))) or (
            isinstance(indent, int) and indent > 64
        ):
            raise TemplateLimitError("indents JSON by more than 64 columns")
        encoder = json.JSONEncoder(
            ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )
        return self.concat(encoder.iterencode(value))


def _check_format(text: str) -> None:
    if len(text) > _MAX_FORMAT or _RISKY_FORMAT.search(text):
        raise SecurityError(f"string formats may have {_MAX_FORMAT} characters and three digits of width")


def _refuse(message: Any) -> None:
    raise TemplateRefusal(str(message))


def _strftime_now(form: str) -> str:
    _check_format(form)
    return datetime.now().strftime(form)
