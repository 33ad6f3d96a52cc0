"""The list of mutants that nobody could notice is about the code as it stands."""

from tools import mutants


def test_each_of_the_list_is_a_mutant_still():
    known, gone = mutants.equivalent(mutants.ROOT)
    assert gone == [] and known


def test_the_list_may_not_name_what_is_gone(tmp_path, monkeypatch):
    (tmp_path / "here.py").write_text("LIMIT = 8\nother = not LIMIT\n")
    lines = [
        "- `here.py`: `8` -> `9` in `LIMIT = 8`: arbitrary",
        "- `here.py`: `7` -> `8` in `LIMIT = 7`: the line is another now",
        "- `gone.py`: `8` -> `9` in `LIMIT = 8`: the file is gone",
        "- here.py is not worth it: no mutant's name",
    ]
    monkeypatch.setattr(mutants, "EQUIVALENT", tmp_path / "LIST.md")
    (tmp_path / "LIST.md").write_text("\n".join(["# Mutants", "", *lines]))
    assert mutants.equivalent(tmp_path) == ({"`here.py`: `8` -> `9` in `LIMIT = 8`"}, lines[1:])
