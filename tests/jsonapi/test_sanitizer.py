"""HTML sanitizer: output of typical and of malicious markup."""

import re
import unicodedata
from time import perf_counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.jsonapi.sanitizer import ALLOWED_TAGS, DROPPED_BLOCKS, NestingTooDeep, clean_html, has_text

REL = 'rel="noopener noreferrer"'


@pytest.mark.parametrize(
    ("pasted", "kept"),
    [
        (
            "<div>Doors 19:00</div><div>Show 20:00</div><h2>Tickets</h2>Free",
            "<p>Doors 19:00</p><p>Show 20:00</p><p>Tickets</p>Free",
        ),
        ("<table><tr><th>A<th>B<tr><td>1<td>2</table>end", "<p>A</p><p>B</p><p>1</p><p>2</p>end"),
        ("<dl><dt>Wi-Fi<dd>Yes<dt>Lift<dd>No</dl>", "<p>Wi-Fi</p><p>Yes</p><p>Lift</p><p>No</p>"),
        ("<section><h1>A</h1>b</section>c", "<p>A</p><p>b</p>c"),
        ("<blockquote><p>a</p><p>b</p></blockquote>c", "<p>a</p><p>b</p>c"),
        ("<header>a</header><article>b</article><footer>c</footer>", "<p>a</p><p>b</p><p>c</p>"),
        ("<li>a<li>b", "<p>a</p><p>b</p>"),
        ("<ul><li>a<div>b</div>c</ul>", "<ul><li>a<p>b</p>c</li></ul>"),
        ("<pre>a\nb</pre>c", "<p>a<br>b</p>c"),
        ("a<hr>b", "a<br>b"),
        ("a<div></div>b", "a<br>b"),
        ("<select><option>a<option>b</select>", "<p>a</p><p>b</p>"),
        ("<div>a<b>b</b> c<p>d</p>e <i>f</i></div>g", "<p>a<b>b</b> c</p><p>d</p><p>e <i>f</i></p>g"),
        ("<div><b>a<div>b</div></b>c</div>", "<b><p>a</p><p>b</p></b><p>c</p>"),
        ('<a href="http://x"><div>a</div></a>', f'<a href="http://x" {REL}><p>a</p></a>'),
        ("<div>a</div>\n<div><br></div>\n<div>b</div>", "<p>a</p>\n<p><br></p>\n<p>b</p>"),
        ("<span>a</span><span>b</span>", "ab"),
        ('<p class="MsoNormal">a<o:p></o:p></p>', "<p>a</p>"),
        ('<div dir="rtl"><h2>a</h2>b</div>', '<p dir="rtl">a</p><p dir="rtl">b</p>'),
    ],
)
def test_clean_html_dropped_block_leaves_a_paragraph(pasted: str, kept: str) -> None:
    assert clean_html(pasted) == kept


@pytest.mark.parametrize("tag", sorted(DROPPED_BLOCKS - {"hr", "table"}))
def test_clean_html_any_dropped_block_does_not_glue_texts(tag: str) -> None:
    cleaned = clean_html(f"one<{tag}>two</{tag}>three<{tag}>four</{tag}><{tag}>five</{tag}>")

    texts = re.sub("<[^>]*>", "\n", cleaned).split()
    assert sorted(texts) == ["five", "four", "one", "three", "two"], cleaned


@pytest.mark.parametrize(
    "kept",
    [
        f'<a href="tel:+49301234567" {REL}>call</a>',
        f'<a href="webcal://example.com/a.ics" {REL}>calendar</a>',
        f'<a href="mailto:a@example.com" {REL}>mail</a>',
        "<s>a</s><del>b</del><ins>c</ins><strike>d</strike><sub>e</sub><sup>f</sup>",
        '<p dir="rtl">a</p><ul dir="auto"><li dir="ltr">b</li></ul>',
        '<p lang="de-CH">a</p>',
        '<ol start="3"><li>a</li></ol>',
        '<ol start="-1"><li>a</li></ol>',
    ],
)
def test_clean_html_harmless_markup_is_kept(kept: str) -> None:
    assert clean_html(kept) == kept


@pytest.mark.parametrize(
    ("pasted", "kept"),
    [
        ('<ol start="x"><li>a</li></ol>', "<ol><li>a</li></ol>"),
        ('<ol start="99999999999"><li>a</li></ol>', "<ol><li>a</li></ol>"),
        ('<p dir="up">a</p>', "<p>a</p>"),
        ('<p dir="RTL">a</p>', '<p dir="rtl">a</p>'),
        ('<p lang="&quot; onclick">a</p>', "<p>a</p>"),
        ('<p start="3" style="color:red" onclick="x()" id="a">a</p>', "<p>a</p>"),
    ],
)
def test_clean_html_other_attributes_are_dropped(pasted: str, kept: str) -> None:
    assert clean_html(pasted) == kept


def test_clean_html_decomposed_text_is_composed() -> None:
    assert clean_html("<div>e\u0301</div>e&#769;") == "<p>\u00e9</p>\u00e9"


@pytest.mark.parametrize("overlay", ["\u0338", "&#x338;"])
def test_clean_html_normal_form_swallows_no_tag(overlay: str) -> None:
    cleaned = clean_html(f"<b>{overlay} onclick=alert(1) x</b>")

    assert cleaned == "<b>\u0338 onclick=alert(1) x</b>"
    assert clean_html(cleaned) == cleaned


ATTACKS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "<svg><style><img src=x onerror=alert(1)></style></svg>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=alert(1)&gt;'>",
    "<form><math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<svg></p><style><a id='</style><img src=1 onerror=alert(1)>'>",
    "<div><a title='</div><img src=x onerror=alert(1)>'>x</a></div>",
    "<a href='javascript:alert(1)'>x</a>",
    "<a href='jav&#x09;ascript:alert(1)'>x</a>",
    "<a href=' &#1; javascript:alert(1)'>x</a>",
    "<a href='data:text/html,<script>alert(1)</script>'>x</a>",
    "<a href='vbscript:x'>x</a>",
    "<p dir='rtl\" onclick=alert(1) x=\"'>x</p>",
    "<ol start='1\" onclick=alert(1) x=\"'><li>x</ol>",
    "<h1 lang='de\"><script>alert(1)</script>'>x</h1>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<textarea><img src=x onerror=alert(1)></textarea>",
    "<title><img src=x onerror=alert(1)></title>",
    "<xmp><img src=x onerror=alert(1)></xmp>",
    "<select><option><style></option></select><img src=x onerror=alert(1)></style>",
    "<template><script>alert(1)</script></template>",
    "<table><tr><td><form action=javascript:alert(1)><button>x</button></form>",
    "<!--><img src=x onerror=alert(1)>-->",
    "<b\u226f onclick=alert(1)>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "<pre>\n<script>alert(1)</script></pre>",
    "<div/onclick=alert(1)>x",
)
TAG = re.compile(r"<(/?)([a-z]+)((?: [a-z]+=\"[^\"<>]*\")*)>")
ATTRIBUTE = re.compile(r' ([a-z]+)="([^"]*)"')
HARMLESS = {"href", "rel", "dir", "lang", "start"}


def check_safe(cleaned: str) -> None:
    """Check that all tags, attributes and URL schemes are allowed."""
    for _closing, tag, attributes in TAG.findall(cleaned):
        assert tag in ALLOWED_TAGS, cleaned
        for name, value in ATTRIBUTE.findall(attributes):
            assert name in HARMLESS, cleaned
            if name == "href":
                scheme = re.match(r"[^/?#]*:", value)
                assert scheme is None or scheme[0].lower() in {"http:", "https:", "mailto:", "tel:", "webcal:"}, cleaned
    assert "<" not in TAG.sub("", cleaned), cleaned


def check_stable(pasted: str) -> None:
    """Check that the output is safe and in NFC, and that cleaning it again changes nothing."""
    cleaned = clean_html(pasted)
    check_safe(cleaned)
    assert clean_html(cleaned) == cleaned
    if "\u0338" not in cleaned:
        assert unicodedata.is_normalized("NFC", re.sub("<[^>]*>", "\n", cleaned))


@pytest.mark.parametrize("attack", ATTACKS)
def test_clean_html_attack_is_harmless_and_cleaned_once_and_for_all(attack: str) -> None:
    for pasted in (attack, f"<div>{attack}</div>", f"<b>{attack}<div>x</div>", attack * 2):
        check_stable(pasted)


GENERATED_TAGS = sorted(ALLOWED_TAGS | DROPPED_BLOCKS | {"span", "svg", "math", "mtext", "style", "button", "font"})
pieces = st.sampled_from(
    [
        *(f"<{tag}>" for tag in GENERATED_TAGS),
        *(f"</{tag}>" for tag in GENERATED_TAGS),
        '<a href="http://x">', '<a href="javascript:x">', '<p dir="rtl">', '<div dir="rtl">', '<ol start="2">',
        "text", " ", "\n", "e\u0301", "&#769;", "\u0338", "&lt;", "&amp;", "&nbsp;", "<", ">", "\"", "'", "=", "<!--",
        "-->", "onerror=alert(1)",
    ]
)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(st.lists(pieces, max_size=25).map("".join))
@example("<b><p><b><p>")
@example("<a><p><a>x")
@example("<p><table><p>")
def test_clean_html_generated_markup_is_harmless_and_stable(pasted: str) -> None:
    check_stable(pasted)


@pytest.mark.parametrize("tag", ["div", "b", "ul><li", "blockquote", "table><tr><td", "a href=x", "font", "math><mi"])
def test_clean_html_deep_nesting_is_refused_at_once(tag: str) -> None:
    started = perf_counter()

    with pytest.raises(NestingTooDeep, match="deeper than 100"):
        clean_html(f"<{tag}>x" * 100_000)

    assert perf_counter() - started < 1


@pytest.mark.parametrize(
    "markup", ["<p>x</p>", "<div>x</div>", "<b>x</b>", "<ul><li>x</ul>", "<li>x", "<td>x", "<hr>x"]
)
def test_clean_html_time_is_linear(markup: str) -> None:
    def seconds(times: int) -> float:
        started = perf_counter()
        clean_html(markup * times)
        return perf_counter() - started

    seconds(100)
    short = min(seconds(500) for _ in range(3))
    long = min(seconds(4000) for _ in range(3))
    assert long < 8 * short * 4 + 0.05  # quadratic time would be 64 times


@pytest.mark.parametrize(
    "markup", ["", "<p></p>", "<p><br></p>", "&nbsp;", "<ul><li>\u200b</li></ul>", "<b> </b>&#8288;"]
)
def test_has_text_invisible_html_has_none(markup: str) -> None:
    assert not has_text(clean_html(markup))


@pytest.mark.parametrize("markup", ["a", "<p>0</p>", "&lt;", "<p>&nbsp;a</p>"])
def test_has_text_visible_html_has_some(markup: str) -> None:
    assert has_text(clean_html(markup))
