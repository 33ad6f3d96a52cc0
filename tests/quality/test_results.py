"""From rows to tables and plots: n is everywhere, FAM's differences are paired, one picture has no interval."""

import contextlib
import sqlite3
import xml.etree.ElementTree as Xml
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from fam_ext.methods.catalog import METHODS
from fam_ext.options.request import HiresRequest
from fam_ext.quality import plot, protocol, tables
from fam_ext.quality.extractors import Extractor
from fam_ext.quality.results import machines
from fam_ext.quality.results import tables as tabulated
from fam_ext.quality.ruler import Measured
from fam_ext.quality.statistics import Estimate
from fam_ext.quality.store import Made, Store


def nothing(pictures):
    return np.zeros((len(pictures), 4))


DEMO = Extractor("demo-net", "FD (demo-net)", "KD (demo-net)", nothing, nothing)
LEVELS = {"fam": 30.0, "direct": 20.0, "tiled": 29.0}


def made(count, methods=tuple(LEVELS), *, memory=None):
    every = protocol.cases([((64, 64), (128, 128))], ["a cat_1 & 5 %"], count=count, seed=0)
    found = []
    request = HiresRequest(size=(64, 64))
    variants = [protocol.Variant(name, name if name in METHODS else "fam", request.config) for name in methods]
    for row in protocol.rows(every, variants, request, {}):
        rng = np.random.default_rng(row.case.seed)
        psnr, features = LEVELS[row.label] + rng.normal(0, 3), rng.normal(LEVELS[row.label] / 10, 1, (4, 4))
        values = {"psnr": psnr, "ms_ssim": 0.9, "period_error": 0.1 if row.case.seed else None}
        measured = Measured(values, {"demo-net crops": features, "demo-net whole": features[:1]})
        found.append((row, Made(2.0 + len(row.label), memory, "r", measured, "here", "torch 1")))
    return found


def real(count=8):
    rng = np.random.default_rng(9)
    every = protocol.cases([((64, 64), (128, 128))], ["a cat_1 & 5 %"], count=count, seed=0)
    return {case: {"demo-net crops": (one := rng.normal(3, 1, (4, 4))), "demo-net whole": one[:1]} for case in every}


def test_tables_say_n_intervals_and_paired_differences():
    text = tables.markdown(tabulated(made(8), (DEMO,), real()), "HEAD")
    assert text.startswith("HEAD\n")
    titles = [line for line in text.splitlines() if line.startswith("## ")]
    assert len(titles) == 5 and all("(n = 8)" in line for line in titles)
    assert "Less FAM's, picture by picture (n = 8):" in text
    # the same noise in each picture: the difference is the same in each though the means are not
    assert "| direct | -10.0 |" in text
    assert "0.10 (n 7)" in text  # all alike: no interval
    assert "FD (demo-net), crops" in text and "FID" not in text and "KID" not in text and "CLIP" not in text
    assert all(cell.less_fam is None for table in tabulated(made(8), (DEMO,), real()) for cell in table.rows["fam"])
    assert "GiB" not in text  # nothing measured, no column


def test_one_slow_picture_moves_neither_a_time_nor_its_difference():
    every, slow = made(5, ("fam", "direct")), {("fam", 1), ("direct", 3)}
    every = [(row, replace(one, seconds=900.0) if (row.label, row.case.seed) in slow else one) for row, one in every]
    rows = tabulated(every, (DEMO,), {})[-1].rows
    fam, direct = rows["fam"][0], rows["direct"][0]
    assert (fam.value.value, direct.value.value, direct.less_fam.value) == (5.0, 8.0, 3.0)


def test_one_picture_has_no_interval():
    text = tables.markdown(tabulated(made(1), (DEMO,), real(1)), "")
    assert "(n = 1)" in text and " to " not in text.replace("to the", "").replace("left to", "").replace("top to", "")
    assert "| fam | - | - | - | - |" in text  # of sets


def test_only_what_every_method_has_is_counted():
    whole = made(4)
    part = [(row, one) for row, one in whole if (row.label, row.case.seed) != ("tiled", 3)]
    assert {table.n for table in tabulated(part, (DEMO,), real())} == {3}


def test_references_that_belong_to_no_case_are_not_paired():
    loose = list(real(5).values())
    text = tables.markdown(tabulated(made(3), (DEMO,), loose), "")
    assert "Distance to the reference pictures (5 of them) (n = 3)" in text and "true pictures (" not in text
    paired = tables.markdown(tabulated(made(3), (DEMO,), real()), "")
    assert "Distance to the true pictures (3 of them) (n = 3)" in paired
    assert "KD (demo-net), crops" in plot.pareto(tabulated(made(3), (DEMO,), loose))


def test_of_how_many_prompts_pictures_are_is_said():
    every = made(6)
    two = [(replace(row, case=replace(row.case, prompt=f"a cat {row.case.seed % 2}")), one) for row, one in every]
    assert "(n = 6, 2 prompts)" in tables.markdown(tabulated(two, (DEMO,), {}), "")
    assert "($n = 6$, 2 prompts)" in tables.latex(tabulated(two, (DEMO,), {}), "")
    assert "prompts" not in tables.markdown(tabulated(every, (DEMO,), {}), "")


def test_intervals_and_differences_draw_prompts():
    def of_two_prompts(row, one):
        prompt = row.case.seed % 2
        values = {**one.measured.values, "psnr": 10.0 * prompt if row.label == "direct" else 30.0 * prompt}
        measured = replace(one.measured, values=values)
        return replace(row, case=replace(row.case, prompt=f"a cat {prompt}")), replace(one, measured=measured)

    (table,) = (
        each for each in tabulated([of_two_prompts(*each) for each in made(40)], (DEMO,), {}) if "kept" in each.title
    )
    own, apart = table.rows["direct"][0].value, table.rows["direct"][0].less_fam
    # two prompts are two: a quarter of the draws has the one alone, as many the other; 40 pictures would say 3.5 to 6.5
    assert (own.value, own.low, own.high) == (5.0, 0.0, 10.0)
    assert (apart.value, apart.low, apart.high) == (-10.0, -20.0, 0.0)


def test_without_fam_there_are_no_differences():
    text = tables.markdown(tabulated(made(3, ("direct", "tiled")), (DEMO,), {}), "")
    assert "Less FAM" not in text and "Distance" not in text


def test_latex_escapes_and_balances():
    text = tables.latex(tabulated(made(4), (DEMO,), real()), "100 % & more")
    assert text.startswith("% 100 % & more")
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 10
    for line in text.splitlines()[1:]:
        assert "%" not in line.replace(r"\%", "") and "_" not in line.replace(r"\_", "")
    assert r"($n = 4$)" in text and r"\uparrow" in text
    widths = [line.count("&") for line in text.splitlines() if line.endswith(r"\\")]
    assert set(widths) <= {1, 2, 4, 5}


def test_a_label_of_any_marks_stays_one_cell(monkeypatch):
    label = "a|b <i> 5 % \\ ^ ~ & {x}"
    monkeypatch.setitem(LEVELS, label, 25.0)
    found = tabulated(made(2, ("fam", label)), (DEMO,), {})
    text = tables.markdown(found, "")
    assert r"| a\|b \<i> 5 % \\ ^ ~ & {x} |" in text
    text = tables.latex(found, "")
    assert r"a|b \textless{}i\textgreater{} 5 \% \textbackslash{} \^{} \~{} \& \{x\} & " in text
    Xml.fromstring(plot.pareto(found))


def test_csv_has_a_line_a_picture():
    lines = tables.as_csv(made(2, memory=2**30)).splitlines()
    assert len(lines) == 7
    assert lines[0] == "method,size,prompt,seed,picture,psnr,ms_ssim,period_error,seconds,peak_memory,machine,libraries"
    assert lines[1].startswith("fam,128x128,a cat_1 & 5 %,0,0-a-cat_1-5-fam-128x128-") and lines[1].endswith(
        ",,5,1,here,torch 1"
    )


def test_the_pareto_picture_is_whole_and_names_every_method():
    text = plot.pareto(tabulated(made(6), (DEMO,), real()))
    root = Xml.fromstring(text)
    words = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"fam", "direct", "tiled", "time of the pass, median, s"} <= set(words)
    assert any(word.startswith("128x128 (n = 6): KD (demo-net), crops, lower is better") for word in words)
    assert any(word.startswith("128x128 (n = 6): PSNR, dB, higher is better") for word in words)
    assert "prefers-color-scheme: dark" in text
    for node in root.iter("{http://www.w3.org/2000/svg}circle"):
        assert plot.LEFT <= float(node.get("cx")) <= plot.WIDTH - plot.RIGHT
        assert plot.TOP <= float(node.get("cy")) <= plot.HEIGHT - plot.BOTTOM
    without = plot.pareto(tabulated(made(1), (DEMO,), {}))
    assert "PSNR, dB, higher is better" in without


@pytest.mark.parametrize("other", ["there", None])
def test_times_of_different_machines_are_left_out(other):
    every = made(4, memory=2**30)
    assert "time, median, s" in tables.markdown(tabulated(every, (DEMO,), {}), "")
    every[5] = every[5][0], replace(every[5][1], machine=other)
    assert machines(every) == ["here", other or "unknown"]
    found = tabulated(every, (DEMO,), {})
    text = tables.markdown(found, "")
    assert "time, median, s" not in text and "peak memory, GiB" in text and "PSNR" in text
    picture = plot.pareto(found)
    assert "no times of one machine" in picture and "circle" not in picture
    assert f'viewBox="0 0 {plot.WIDTH} {plot.HEIGHT}"' in picture


def test_a_long_label_is_cut_where_the_picture_ends(monkeypatch):
    label = "attention 0.5 & the window <1 to 0.5>"
    monkeypatch.setitem(LEVELS, label, 25.0)
    root = Xml.fromstring(plot.pareto(tabulated(made(2, ("fam", label)), (DEMO,), {})))
    texts = {node.text: node for node in root.iter("{http://www.w3.org/2000/svg}text")}
    assert next(iter(texts["attention 0.5 &…"])).text == label and "fam" in texts


def test_labels_do_not_lie_on_each_other():
    places = plot._apart({str(number): 200.0 for number in range(14)}, plot.HEIGHT - plot.BOTTOM)
    heights = sorted(places.values())
    assert min(b - a for a, b in pairwise(heights)) >= plot.LINE - 1e-9
    assert heights[-1] <= plot.HEIGHT - plot.BOTTOM + 1e-9
    assert plot._apart({"the highest": 0.0}, 200.0) == {"the highest": plot.TOP}


def test_each_of_many_methods_has_its_own_line_within_the_picture(monkeypatch):
    for number in range(30):
        monkeypatch.setitem(LEVELS, f"way {number}", 20.0 + number / 9)
    root = Xml.fromstring(plot.pareto(tabulated(made(2, tuple(LEVELS)), (DEMO,), {})))
    lines = sorted(float(node.get("y")) for node in root.iter("{http://www.w3.org/2000/svg}text") if len(node))
    assert len(lines) == 33 and min(b - a for a, b in pairwise(lines)) >= plot.LINE - 0.2
    height = float(root.get("viewBox").split()[3])
    assert lines[0] >= plot.TOP and lines[-1] <= height - plot.BOTTOM + 5
    both = plot.pareto(tabulated(made(2, tuple(LEVELS)), (DEMO,), real(2)))
    assert f"translate(0 {height:g})" in both and f'viewBox="0 0 {plot.WIDTH} {2 * height:g}"' in both


def test_the_front_is_what_no_other_beats():
    points = [plot.Point(name, seconds, Estimate(quality, None, None, 1)) for name, seconds, quality in
              (("a", 1, 5.0), ("b", 2, 9.0), ("c", 3, 7.0), ("d", 2, 8.0))]  # fmt: skip
    assert [point.name for point in plot.front(points, "more")] == ["a", "b"]
    assert [point.name for point in plot.front(points, "less")] == ["a"]


@pytest.mark.parametrize("values", [[3.0], [0.0, 0.0], [1.2, 97.0], [-5e-4, 2e-3], [0, 31.7]])
def test_an_axis_holds_its_values(values):
    ticks = plot._axis(values)
    assert ticks[0] <= min(values) and ticks[-1] >= max(values) and 2 <= len(ticks) <= 9


def test_the_store_keeps_rows_by_fingerprint(tmp_path):
    first, second = made(1)[:2]
    with Store(tmp_path) as store:
        store.put(*first)
        assert store.get(second[0].fingerprint) is None
    with Store(tmp_path) as store:
        found = store.get(first[0].fingerprint)
        assert found.measured.values == first[1].measured.values and found.ruler == "r"
        assert (found.measured.features["demo-net crops"] == first[1].measured.features["demo-net crops"]).all()
        store.put(first[0], Made(9.0, None, "s", first[1].measured))
        assert store.get(first[0].fingerprint).seconds == 9.0


@pytest.mark.parametrize("lacking", [("machine", "libraries"), ("libraries",)])
def test_a_store_of_an_older_version_lacks_columns_and_takes_them(tmp_path, lacking):
    first, second = made(1)[:2]
    with Store(tmp_path) as store:
        store.put(*first)
    with contextlib.closing(sqlite3.connect(tmp_path / "results.sqlite")) as rows:
        for column in lacking:
            rows.execute(f"ALTER TABLE rows DROP COLUMN {column}")
    with Store(tmp_path) as store:
        assert store.get(first[0].fingerprint).libraries is None
        store.put(*second)
    with Store(tmp_path) as store:
        assert [store.get(row.fingerprint).libraries for row, _ in (first, second)] == [None, "torch 1"]
        assert store.get(second[0].fingerprint).machine == "here"
