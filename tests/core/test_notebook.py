from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from musubi.core.notebook import card


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    return reader


@given(title=st.text(), name=st.text(), value=st.text())
def test_text_never_becomes_markup(title: str, name: str, value: str) -> None:
    plain, tricky = read(card("t", [("n", "v")])), read(card(title, [(name, value)]))

    assert tricky.tags == plain.tags


def test_scripts_and_attributes_are_shown_not_run() -> None:
    html = card('<img src=x onerror="alert(1)">', [("</table><script>", "\"'><b>")])

    assert "<script" not in html
    assert "<img" not in html
    assert read(html).text == '<img src=x onerror="alert(1)"></table><script>"\'><b>'


def test_every_row_has_its_name_and_value() -> None:
    reader = read(card("Plan", [("steps", 100), ("seed", None)]))

    assert reader.text == "Plansteps100seedNone"
    assert reader.tags.count("tr") == 2


def test_a_card_without_rows_is_a_title() -> None:
    assert read(card("Plan", [])).text == "Plan"
