from __future__ import annotations

import numpy as np
import torch

from musubi.inference.asking import ask, digest, read_given
from musubi.inference.request import Request
from musubi.inference.single_frame import SingleFrame
from tests.inference.showing import Showing

CPU, FLOAT = torch.device("cpu"), torch.float32
RED, GREEN = np.full((8, 8, 3), (255, 0, 0), np.uint8), np.full((6, 4, 3), (0, 255, 0), np.uint8)


def test_components_are_loaded_once_for_all_that_show_something_and_freed() -> None:
    toy = Showing()
    jobs = [request.job(toy) for request in (Request("a", image=RED), Request("b"), Request("c", last=GREEN))]

    made = ask(toy, jobs, [read_given(job, toy.geometry) for job in jobs], device=CPU, dtype=FLOAT)

    assert [list(one) for one in made] == [["colours"], [], ["colours"]]
    assert made[0]["colours"].tolist() == [1, 0, 0]
    assert made[2]["colours"].tolist() == [0, 1, 0]
    assert toy.alive.seen == [("vae",)], "both stages work with the same component"
    toy.codec().load("vae", device=CPU, dtype=FLOAT)
    assert toy.alive.seen[-1] == ("vae",), "and it is gone"


def test_nothing_to_look_at_loads_nothing() -> None:
    toy = Showing()
    job = Request("a").job(toy)

    assert ask(toy, [job], [read_given(job, toy.geometry)], device=CPU, dtype=FLOAT) == [{}]
    assert toy.alive.seen == []


def test_a_jobs_own_places_in_time_reach_the_codec() -> None:
    toy, places = Showing(), SingleFrame(target=1, controls=(9,))
    job = Request("a", control=[RED], single_frame=places).job(toy)

    (made,) = ask(toy, [job], [read_given(job, toy.geometry)], device=CPU, dtype=FLOAT)

    assert made["f_indices"].tolist() == [1, 9]


def test_what_shows_the_same_in_the_same_way_is_known_again() -> None:
    toy = Showing()

    def content(request: Request) -> str:
        job = request.job(toy)
        return digest(job, read_given(job, toy.geometry))

    same = content(Request("a", image=RED, seed=1))
    assert content(Request("b", image=RED.copy(), seed=2)) == same
    others = [
        Request("a", image=GREEN),
        Request("a", last=RED),
        Request("a", image=RED, frames=5),
        Request("a", image=RED, size=(32, 32)),
        Request("a", control=[RED], single_frame=SingleFrame(target=1, controls=(0,))),
        Request("a", control=[RED], single_frame=SingleFrame(target=2, controls=(0,))),
    ]
    assert len({same, *map(content, others)}) == 1 + len(others)
