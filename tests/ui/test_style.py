"""The stylesheet names only what the page has: a class that no code gives, or an element taken for a class, is dead."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
STYLE = (ROOT / "style.css").read_text()
SCRIPTS = [*(ROOT / "fam_ext").rglob("*.py"), *(ROOT / "fam_ext").rglob("*.js"), *(ROOT / "javascript").glob("*.js")]
TAG = r"</?(fam-[a-z-]+)"


def named():
    """Return the (classes, elements) that our code names; `fam-{kind}` is every kind that `sentence_html` is given."""
    code = "\n".join(path.read_text() for path in SCRIPTS)
    elements = set(re.findall(TAG, code))
    kinds = {"note", *re.findall(r'kind="([a-z]+)"', code)}
    rest = re.sub(rf"{TAG}|customElements\S+ .*", "", code).replace(
        "fam-{kind}", " ".join(f"fam-{kind}" for kind in kinds)
    )
    return set(re.findall(r"fam-[a-z-]+", rest)), elements


def test_the_code_names_each_selector_of_the_stylesheet():
    classes, elements = named()
    assert {"fam-note", "fam-error", "fam-table"} <= classes and "fam-files" in elements
    assert "fam-files" not in classes
    assert set(re.findall(r"\.(fam-[a-z-]+)", STYLE)) <= classes
    assert set(re.findall(r"(?<![.\w-])fam-[a-z-]+", STYLE)) <= elements
