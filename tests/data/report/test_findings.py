from __future__ import annotations

from musubi.core.errors import Issue
from musubi.data.report.findings import gathered


def test_issues_are_gathered_by_message_the_most_frequent_first() -> None:
    issues = [Issue("a", "short"), Issue("b", "damaged"), Issue("c", "damaged"), Issue("d", "odd")]

    found = gathered(issues)

    assert [(finding.message, [issue.path for issue in finding.issues]) for finding in found] == [
        ("damaged", ["b", "c"]),
        ("short", ["a"]),
        ("odd", ["d"]),
    ]


def test_a_finding_has_a_hint_only_if_all_its_issues_have_the_same() -> None:
    same = gathered([Issue("a", "m", "do this"), Issue("b", "m", "do this")])
    other = gathered([Issue("a", "m", "do this"), Issue("b", "m", "do that")])

    assert [finding.hint for finding in same + other] == ["do this", ""]
