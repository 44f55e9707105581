"""HTML sanitizer: reduces pasted HTML to the elements that descriptions need.

Removed block elements become paragraphs, so that their texts stay separate. `clean_html` always applies the
strict sanitizer last, so that no earlier step has to be safe.
"""

import html
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import nh3

from app.texts import is_blank, to_nfc

INLINE_TAGS = frozenset(
    {"a", "b", "strong", "i", "em", "u", "s", "strike", "del", "ins", "sub", "sup"},
)
LIST_TAGS = frozenset({"ul", "ol"})
ALLOWED_TAGS = INLINE_TAGS | LIST_TAGS | {"p", "br", "li"}
URL_SCHEMES = frozenset({"http", "https", "mailto", "tel", "webcal"})

DROPPED_BLOCKS = frozenset(
    {
        *("address", "article", "aside", "blockquote", "caption", "center", "dd", "details", "dialog", "dir", "div"),
        *("dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6"),
        *("header", "hgroup", "hr", "legend", "main", "menu", "nav", "optgroup", "option", "pre", "search", "section"),
        *("select", "summary", "table", "tbody", "td", "tfoot", "th", "thead", "tr"),
    }
)
"""Block elements that are replaced by paragraphs."""

BLOCKS = DROPPED_BLOCKS | LIST_TAGS | {"p", "li"}
VOID_TAGS = frozenset({"br", "hr"})

DIRECTIONS = frozenset({"rtl", "ltr", "auto"})
LIST_START_RE = re.compile(r"-?[0-9]{1,9}")
LANGUAGE_RE = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,4}")

MAX_CLEANING_PASSES = 4
"""Max passes until cleaning changes nothing; only markup that no editor writes needs more than one."""

# The serializer escapes "<" in texts and in attribute values, so each of these is a tag.
_TOKEN_RE = re.compile(r"<(/?)([a-z][a-z0-9]*)([^<>]*)>|([^<]+|<)")
_DROPPED_TAG_RE = re.compile(rf"<(?:{'|'.join(sorted(DROPPED_BLOCKS))}|li)[ >]")

_TABLE_PART_RE = re.compile("<(/?)(?:caption|tbody|td|tfoot|th|thead|tr)(?=[\\s/>])", re.IGNORECASE)
"""Pattern of tags that an HTML parser ignores outside a table."""

MAX_DEPTH = 100
"""Max depth of nested elements; the time of the parser grows quadratically with it."""

_TAG_RE = re.compile(
    r"""<!--.*?(?:-->|$)|<(/?)([a-z][^\s/>]*)(?:"[^"]*(?:"|$)|'[^']*(?:'|$)|[^'">])*(?:>|$)""", re.I | re.S
)
_IMPLIED_ENDS = frozenset(
    {*("area", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr")}
    | {"p", "li", "dd", "dt", "option", "tr", "td", "th"}
)
"""Elements that are empty, or end implicitly where the next one starts."""


class NestingTooDeep(ValueError):
    """The HTML has elements nested deeper than MAX_DEPTH."""

    def __init__(self) -> None:
        super().__init__(f"Must not nest elements deeper than {MAX_DEPTH}.")


def clean_html(text: str) -> str:
    """Return the allowed part of HTML with its texts in NFC; cleaning the result again changes nothing.

    Raise NestingTooDeep or TooManyMarks, which are ValueErrors, if cleaning would take too long.
    """
    _check_depth(text)
    if "<table" not in text.lower():
        text = _TABLE_PART_RE.sub(r"<\1div", text)
    for _ in range(MAX_CLEANING_PASSES):
        cleaned = _clean_once(text)
        if cleaned == text:
            break
        text = cleaned
    return text


def has_text(cleaned: str) -> bool:
    """Return whether clean HTML contains visible text."""
    return not is_blank(html.unescape(re.sub("<[^<>]*>", "", cleaned)))


def _clean_once(text: str) -> str:
    cleaned = _BLOCK_CLEANER.clean(normalize_html(text))
    if _DROPPED_TAG_RE.search(cleaned):
        cleaned = _CLEANER.clean(_ParagraphBuilder(cleaned).build_markup())
    # Character references may have been decoded to combining marks.
    return normalize_html(cleaned)


def normalize_html(markup: str) -> str:
    """Return the HTML with its texts in NFC; split at tags, as NFC composes ">" and a following U+0338."""
    return "".join(map(to_nfc, re.split("([<>])", markup)))


def _check_depth(markup: str) -> None:
    open_tags: Counter[str] = Counter()
    for match in _TAG_RE.finditer(markup):
        closing, tag = match[1], (match[2] or "").lower()
        if closing:
            open_tags[tag] = max(0, open_tags[tag] - 1)
        elif tag and tag not in _IMPLIED_ENDS:
            open_tags[tag] += 1
            if open_tags.total() > MAX_DEPTH:
                raise NestingTooDeep


def _filter_attribute(_tag: str, name: str, value: str) -> str | None:
    """Return the value of the attribute to keep, or None if it is invalid."""
    stripped = value.strip()
    if name == "dir":
        return stripped.lower() if stripped.lower() in DIRECTIONS else None
    if name == "start":
        return stripped if LIST_START_RE.fullmatch(stripped) else None
    if name == "lang":
        return stripped if LANGUAGE_RE.fullmatch(stripped) else None
    return value


def _make_cleaner(tags: frozenset[str]) -> nh3.Cleaner:
    return nh3.Cleaner(
        tags=set(tags),
        attributes={"*": {"dir", "lang"}, "a": {"href"}, "ol": {"start"}},
        attribute_filter=_filter_attribute,
        url_schemes=set(URL_SCHEMES),
    )


_CLEANER = _make_cleaner(ALLOWED_TAGS)
_BLOCK_CLEANER = _make_cleaner(ALLOWED_TAGS | DROPPED_BLOCKS)


@dataclass
class _OpenElement:
    """An open element; a block with `is_dropped` is replaced by paragraphs with its `attributes`."""

    tag: str
    attributes: str = ""
    is_dropped: bool = False
    holds_blocks: bool = False


class _ParagraphBuilder:
    """Replaces dropped blocks in serialized HTML by paragraphs, in linear time."""

    def __init__(self, markup: str) -> None:
        self._tokens = _TOKEN_RE.findall(markup)
        self._has_block = _find_block_containers(self._tokens)
        self._written: list[str] = []
        self._open: list[_OpenElement] = []
        self._blocks = [_OpenElement("")]
        """Open blocks; the first one is the root."""
        self._in_paragraph = False
        self._after_text = False
        """True if the output ends with text, so that more text needs a line break before it."""
        self._needs_break = False

    def build_markup(self) -> str:
        """Return the markup without dropped blocks."""
        for index, (closing, tag, attributes, text) in enumerate(self._tokens):
            if text:
                self._add_text(text)
            elif tag == "br":
                self._add_inline("<br>")
            elif tag == "hr":
                self._end_line()
            elif closing:
                self._end_element(tag)
            else:
                self._start_element(tag, attributes, has_block=self._has_block[index])
        self._end_line()
        return "".join(self._written)

    def _start_element(self, tag: str, attributes: str, *, has_block: bool) -> None:
        if tag not in BLOCKS:
            self._start_inline(tag, attributes, has_block=has_block)
            return
        self._end_line()
        parent = self._blocks[-1]
        is_stray_item = tag == "li" and parent.tag not in LIST_TAGS
        is_dropped = tag in DROPPED_BLOCKS or is_stray_item or (tag == "p" and has_block)
        inherited = parent.attributes if is_dropped and parent.is_dropped else ""
        element = _OpenElement(tag, attributes or inherited, is_dropped)
        self._blocks.append(element)
        self._open.append(element)
        if not is_dropped:
            self._write_block(f"<{tag}{attributes}>")

    def _start_inline(self, tag: str, attributes: str, *, has_block: bool) -> None:
        """Start an inline element; one that contains blocks must not be inside a paragraph."""
        if has_block:
            self._end_paragraph()
            self._written.append(f"<{tag}{attributes}>")
        else:
            self._add_inline(f"<{tag}{attributes}>")
        self._open.append(_OpenElement(tag, holds_blocks=has_block))

    def _end_element(self, tag: str) -> None:
        element = self._open.pop() if self._open else _OpenElement(tag)
        if tag not in BLOCKS:
            if element.holds_blocks:
                self._end_paragraph()
            self._written.append(f"</{tag}>")
            return
        self._end_line()
        self._blocks.pop()
        if not element.is_dropped:
            self._write_block(f"</{tag}>")

    def _add_text(self, text: str) -> None:
        if self._blocks[-1].tag == "pre":
            lines = text.split("\n")
            for line in lines[:-1]:
                self._add_visible(line)
                self._add_inline("<br>")
            text = lines[-1]
        self._add_visible(text)

    def _add_visible(self, text: str) -> None:
        if text.strip(" \t\r\n\f"):
            self._add_inline(text)
        else:
            self._written.append(text)

    def _add_inline(self, content: str) -> None:
        block = self._blocks[-1]
        if block.is_dropped and not self._in_paragraph:
            self._write_block(f"<p{block.attributes}>")
            self._in_paragraph = True
        if self._needs_break:
            self._written.append("<br>")
            self._needs_break = False
        self._written.append(content)
        self._after_text = True

    def _end_line(self) -> None:
        """End a paragraph, or request a line break before the next content."""
        self._end_paragraph()
        self._needs_break |= self._after_text

    def _end_paragraph(self) -> None:
        if self._in_paragraph:
            self._in_paragraph = False
            self._write_block("</p>")

    def _write_block(self, tag: str) -> None:
        self._written.append(tag)
        self._after_text = self._needs_break = False


def _find_block_containers(tokens: Sequence[Sequence[str]]) -> list[bool]:
    """Return, for each token, whether it starts an element that contains a block."""
    has_block = [False] * len(tokens)
    opened: list[int] = []
    for index, (closing, tag, _attributes, _text) in enumerate(tokens):
        if tag in ("", "br"):
            continue
        if not closing and tag not in VOID_TAGS:
            opened.append(index)
            continue
        ended = opened.pop() if closing and opened else index
        if opened and (has_block[ended] or tag in BLOCKS):
            has_block[opened[-1]] = True
    return has_block
