"""A folder job as the page shows it: its line, its table, its last pictures; pause, skip and stop."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gradio as gr
from PIL import Image

from fam_ext.escapes import shown
from fam_ext.ui.compare import MOST_LIVE, files_compared
from fam_ext.ui.host import TAB_ID, TabHost, TabParts
from fam_ext.ui.tables import files_html, row_name, sentence_html, status_html
from fam_ext.ui.thumbnails import Thumbnail, Thumbnails, seen
from fam_ext.ui.trial_grid import SIDE, trial_html

_POLL_SECONDS = 0.5
_UNCHANGED = gr.update()
_GALLERY = 12
_UNSERVED = re.compile(r"[#?%]|[\\/]\.")
"""What gradio escapes in no address, and hidden folders, which it serves nothing of: it shows a copy of such a file."""


class Watch:
    """The page's view of the latest job; it says only what the page does not show yet."""

    def __init__(self, host: TabHost) -> None:
        self._host = host
        self._thumbnails = Thumbnails()
        self._large = Thumbnails(SIDE, seconds=10)  # a trial's few

    def said(self, words: str) -> tuple[Any, ...]:
        """Return the outputs that show one sentence, no files, and leave the rest."""
        return words, "", *(_UNCHANGED,) * 6

    def __call__(self, ended: str) -> Iterator[tuple[Any, ...]]:
        """Yield the outputs of `bind_running` until the job ends. `ended` is the ended job that the page shows."""
        batch = self._host.batches.latest()
        if batch is None or (batch.over and batch.id == ended):
            yield (_UNCHANGED,) * 8
            return
        newest, table = None, ("", "-")
        while True:
            over = batch.over
            job, rows = batch.to_json(), batch.last_rows()
            status = status_html(job, memory=self._host.memory())
            files = self._files(batch, rows)
            done = [row for row in rows if row["state"] == "done" and batch.trial is None]
            results: tuple[Any, ...] = (_UNCHANGED,) * 3
            if done[-1:] != newest:  # at first too: another job's pictures go
                newest = done[-1:]
                results = _latest_results(batch, done)
            pause = gr.update(value="Go on" if batch.control.paused else "Pause")
            shown_files, grid = (_UNCHANGED, _UNCHANGED) if files == table else files
            yield status, shown_files, *results, pause, batch.id if over else "", grid
            table = files
            if over:
                return
            time.sleep(_POLL_SECONDS)

    def _files(self, batch: Any, rows: list[dict[str, Any]]) -> tuple[str, str]:  # noqa: ANN401
        """Return the table of the job's files, or the grid of a trial; "" for the other."""
        if batch.trial is not None:
            self._large.begin()
            return "", trial_html(batch.trial, self._large.of, now=batch.current)
        self._thumbnails.begin()
        return files_html(rows, lambda row: self._of(batch, row)), ""

    def _of(self, batch: Any, row: Mapping[str, Any]) -> tuple[Thumbnail | None, Thumbnail | None]:  # noqa: ANN401
        result = self._thumbnails.of(batch.result(row)) if row["state"] == "done" else None
        return self._thumbnails.of(batch.source(row)), result


def bind_running(host: TabHost, watch: Watch, buttons: dict[str, Any], parts: TabParts) -> list[Any]:
    """Bind the buttons of a run; return the components that `watch` fills."""
    ended = gr.State("")
    outputs = [
        *(parts.status, parts.files, parts.gallery, parts.said, parts.compare),
        *(buttons["pause"], ended, parts.trial),
    ]
    buttons["watch"].click(watch.__call__, inputs=[ended], outputs=outputs, show_progress=False, api_name=False)

    def say(action: Callable[[Any], None]) -> Callable[[], None]:
        def act() -> None:
            batch = host.batches.active()
            if batch is not None:
                action(batch)

        return act

    def pause(batch: Any) -> None:  # noqa: ANN401
        if batch.control.paused:
            batch.control.resume()
        else:
            batch.control.pause()

    for name, action in (
        ("pause", pause),
        ("skip", lambda batch: host.skip()),
        ("stop_after", lambda batch: batch.control.stop_after_this()),
        ("stop", lambda batch: batch.control.cancel()),
    ):
        buttons[name].click(say(action), inputs=[], outputs=[], show_progress=False, api_name=False, queue=False)

    def compared(key: str) -> str:
        batch = host.batches.latest()
        # only what this job made: the key comes from a client
        row = next((row for row in batch.last_rows() if row_name(row["key"]) == key), None) if batch else None
        if batch is None or row is None or row["state"] != "done":
            return sentence_html("that file is not among the finished ones of the last job", kind="error")
        files = batch.source(row), batch.result(row)
        return files_compared(*files) or sentence_html(f"{shown(row['key'])} or its result is gone", kind="error")

    picked = gr.Textbox(label="File to compare", elem_id=f"{TAB_ID}_pick", elem_classes="fam-hidden")
    picked.do_not_save_to_config = True
    pick = gr.Button("Compare", elem_id=f"{TAB_ID}_pick_go", elem_classes="fam-hidden")
    pick.click(compared, inputs=[picked], outputs=[parts.compare], show_progress=False, api_name=False, queue=False)
    return outputs


def _latest_results(batch: Any, done: list[dict[str, Any]]) -> tuple[Any, ...]:  # noqa: ANN401
    """Return the gallery of the last finished pictures, no infotext (their files have it), and before and after of the
    very last one."""
    pictures: list[Image.Image | str] = []
    for row in reversed(done[-_GALLERY:]):
        path = batch.result(row)
        found = seen(path, side=512)
        if found is None:
            continue
        if _UNSERVED.search(str(path)):
            pictures.append(str(path))
            continue
        thumbnail = found[0]
        thumbnail.thumbnail((512, 512))
        # the WebUI shows and sends this file in place of the thumbnail
        setattr(thumbnail, "already_saved_as", str(path))  # noqa: B010
        pictures.append(thumbnail)
    compare: Any = ""
    if done:
        compare = files_compared(batch.source(done[-1]), batch.result(done[-1]), most=MOST_LIVE) or _UNCHANGED
    return pictures, "", compare
