"""Rows of load runs and the files that are theirs: whose they are, and what is removed with whom."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.conf import settings

from tests.web.load_runs import finished
from webapp.models import LoadRun
from webapp.services import load, loadreport

pytestmark = pytest.mark.usefixtures("rows")


@pytest.fixture(autouse=True)
def loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(settings, "VAR_DIR", tmp_path)
    folder = tmp_path / "loads"
    folder.mkdir()
    return folder


def kept(folder: Path, title: str) -> LoadRun:
    folder.mkdir(exist_ok=True)
    (folder / "summary.json").write_text("{}")
    return load.keep_finished(folder, finished(10).summary, title=title)


def test_a_run_into_the_folder_of_an_earlier_one_takes_its_place_in_the_list(loads: Path) -> None:
    earlier, other = kept(loads / "example", "first"), kept(loads / "other", "other")
    later = kept(loads / "example", "second")
    assert set(LoadRun.objects.filter(asked_by="cli")) == {later, other}
    assert not LoadRun.objects.filter(id=earlier.id).exists(), "it would hand out the later one's files as its own"


def test_a_run_that_goes_on_in_a_folder_keeps_its_row(loads: Path) -> None:
    running = kept(loads / "example", "first")
    LoadRun.objects.filter(id=running.id).update(state=LoadRun.State.RUNNING)
    kept(loads / "example", "second")
    assert LoadRun.objects.filter(id=running.id).exists()


def test_deleting_a_run_into_the_folder_of_all_runs_leaves_the_others_their_files(loads: Path) -> None:
    other, everything = kept(loads / "other", "other"), kept(loads, "everything")
    load.delete(everything)
    assert (Path(other.folder) / "summary.json").exists()
    load.delete(other)
    assert not Path(other.folder).exists()


def test_a_run_is_stopping_until_its_row_has_the_results_and_its_report_comes_after(
    loads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = kept(loads / "stopped", "stopped")
    LoadRun.objects.filter(id=row.id).update(state=LoadRun.State.RUNNING)
    job = SimpleNamespace(run=lambda: None, stop=lambda: None, stopping=True, note="")
    monkeypatch.setitem(load._running, row.id, job)
    seen: list[Any] = []

    def results(_: Path) -> tuple[dict[str, Any], dict[str, Any], bool]:
        seen.append(load.is_stopping(row.id))
        return {**row.summary, "ended": "stopped"}, {}, False

    def written(_: Path) -> None:
        seen.append((load.is_stopping(row.id), LoadRun.objects.get(id=row.id).state))

    monkeypatch.setattr(load, "results", results)
    monkeypatch.setattr(loadreport, "write_apart", written)
    load._supervise(row.id, job, threading.Event())
    assert seen == [True, (False, LoadRun.State.STOPPED)]
