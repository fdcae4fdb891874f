from __future__ import annotations

from musubi.networks.tables import html_table, text_table


def test_columns_are_aligned_the_first_to_the_left() -> None:
    assert text_table([("a", "b"), ("long", "1"), ("x", "100")]) == "a       b\nlong    1\nx     100"


def test_html_is_escaped_and_headed() -> None:
    html = html_table("a <b>", [("h",), ("<script>",)])

    assert "a &lt;b&gt;" in html
    assert "<th" in html
    assert "&lt;script&gt;" in html
    assert "<script>" not in html
