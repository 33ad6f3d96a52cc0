"""Which renderer a journal names, and what is kept of one."""

import pytest

from fam_ext.errors import UsageError
from fam_ext.jobs.renderers import _ARGUMENTS, RendererSpec, kept_renderer, to_keep
from fam_ext.options.renderer import RendererChoice
from tests.jobs.fakes import Fast


@pytest.mark.parametrize("kept", [None, [], "standalone", {}, {"arguments": {}}, {"name": "webui"}, to_keep(Fast)])
def test_a_renderer_that_no_other_process_can_build_is_named_so(kept: object) -> None:
    with pytest.raises(UsageError, match="drawn in the WebUI, or the journal names no renderer"):
        kept_renderer(kept)


@pytest.mark.parametrize("name", ["magic", "os:system", 5, ["standalone"]])
def test_a_name_that_is_not_ours_is_refused(name: object) -> None:
    with pytest.raises(UsageError, match=r"not one of ours \(standalone\)"):
        kept_renderer({"name": name})


def test_what_is_kept_is_what_is_read() -> None:
    spec = RendererSpec("standalone", {"model": "m", "device": "cpu"})
    assert kept_renderer(to_keep(spec)) == spec
    with pytest.raises(UsageError, match="renderer is 'magic'; choose standalone"):
        RendererSpec("magic").build()


def test_a_journal_may_name_every_argument_that_a_command_line_gives_and_no_other() -> None:
    assert set(RendererChoice().arguments) == _ARGUMENTS
