"""What a generation says of its pictures, and what it enlarges."""

from unittest.mock import MagicMock

from fam_ext.core.config import FamConfig
from fam_ext.core.guide import GuideReport
from fam_ext.options.table import VERSION_KEY
from tests.webui_parts.conftest import Txt2Img

WHOLE = GuideReport(4, {"site": 4})


def said_of(session, part):
    """Return what the infotext says of every picture of three iterations, and of their grid."""
    p, dials = (
        session.p,
        {
            "version": part._dial(session, VERSION_KEY),
            "if ran": part._said_if_ran(session, lambda: "yes"),
            "method": part._said_after_a_pass(session, "yes"),
        },
    )

    def text(**named):
        # the WebUI names an iteration where it writes from the seeds of all
        words = {"p": p, "iteration": 0, "all_seeds": p.all_seeds, "use_main_prompt": False, "index": 0, **named}
        return {name for name, value in dials.items() if value(**words) is not None}

    of_pictures, by_iteration = [], [text(iteration=number) for number in range(3)]
    for p.iteration in range(3):
        p.seeds = p.all_seeds[p.iteration : p.iteration + 1]
        of_pictures.append(text(all_seeds=p.seeds))
    assert not text(p=Txt2Img(seeds=p.seeds))  # a copy's
    return of_pictures, by_iteration, text(all_seeds=p.seeds, use_main_prompt=True)


def test_each_picture_s_infotext_says_what_ran_on_it(webui):
    part = webui("generation")
    session = webui("session").open_session(Txt2Img(all_seeds=[5, 6, 7]), FamConfig(), MagicMock())
    session.reports = {1: WHOLE, 2: GuideReport()}
    every = {"version", "if ran", "method"}
    assert said_of(session, part) == ([set(), every, {"method"}], [set(), every, {"method"}], set())
    session.reports = {0: WHOLE}
    assert said_of(session, part) == ([every, set(), set()], [every, set(), set()], every)
