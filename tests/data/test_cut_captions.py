from __future__ import annotations

from musubi.architecture import CaptionLengths
from musubi.batch import Sample
from musubi.data.cut_captions import cut_captions


def test_each_caption_that_is_cut_is_said_once_by_the_first_that_has_it() -> None:
    samples = [Sample(name=name, caption=caption) for name, caption in (("a", "long"), ("b", "short"), ("c", "long"))]

    (issue,) = cut_captions(samples, CaptionLengths(tokens=(9, 3, 9), limit=8))

    assert issue.path == "a"
    assert issue.message == "the caption has 9 tokens, all after the first 8 are ignored"


def test_the_limit_itself_is_read() -> None:
    assert cut_captions([Sample(name="a", caption="x")], CaptionLengths(tokens=(8,), limit=8)) == []
