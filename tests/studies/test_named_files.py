"""A study does not mix runs of two versions of a file that says what they learn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from iidm.cli import write_config
from iidm.config import Config
from iidm.runs import keep_descriptions
from iidm.studies.folder import StudyFolder
from iidm.studies.grid import Row, Study
from iidm.studies.named_files import changed, refuse_changed, sums, with_kept_descriptions
from iidm.studies.plan import Plan, Wishes, make_plan
from iidm.types import UserError

TOML = """
images = "images"
labels = "labels"

[[classes]]
name = "ground"

[[classes]]
name = "sky"
"""
STUDY = Study("mine", "Mine", (Row("L_t", "target_only"),))


@pytest.fixture
def camera(tmp_path: Path) -> Path:
    (tmp_path / "camera.toml").write_text(TOML)
    return tmp_path / "camera.toml"


@pytest.fixture
def plan(camera: Path) -> Plan:
    options = ("--data.target.spec", str(camera), "--data.val-list", str(camera.with_name("val.txt")))
    return make_plan(STUDY, Wishes("folder", budgets=(2,), seeds=1, options=options))


def begin(config: Config, run_dir: Path) -> None:
    """What a run writes at its start."""
    run_dir.mkdir(parents=True)
    write_config(keep_descriptions(config, run_dir), run_dir / "config.json")


def test_a_run_that_goes_on_ends_with_the_description_that_it_began_with(
    plan: Plan, camera: Path, tmp_path: Path
) -> None:
    (run,) = plan.runs
    assert with_kept_descriptions(run.config, tmp_path / "run") == run.config, "it has not begun"
    begin(run.config, tmp_path / "run")
    camera.write_text(TOML.replace("sky", "SKY"))
    kept = with_kept_descriptions(run.config, tmp_path / "run")
    assert Path(kept.data.target.spec).read_text() == TOML
    assert kept.target_root == camera.parent, "below which its relative folders lie"
    assert replace(kept, data=run.config.data, target_root=None) == run.config, "and all else is as the study has it"


def test_a_file_that_was_changed_since_runs_began_stops_the_study_and_is_named(
    plan: Plan, camera: Path, tmp_path: Path
) -> None:
    (run,), folder = plan.runs, StudyFolder(tmp_path / "out")
    assert set(sums(run.config)) == {"data.target.spec"}, "a list that is not there is none"
    record = {run.key: {"files": sums(run.config)}}
    assert changed(plan, folder, record) == [] == changed(plan, folder, {}) == changed(plan, folder, {run.key: {}})
    begin(run.config, folder.runs / run.name)
    camera.write_text(TOML.replace("sky", "SKY"))
    for records in (record, {}):  # done, or only begun
        with pytest.raises(UserError, match=r"camera\.toml \(--data\.target\.spec\) was changed since runs of .*out"):
            refuse_changed(plan, folder, records)
    camera.write_text(TOML)
    refuse_changed(plan, folder, record)
    (tmp_path / "val.txt").write_text("a\n")
    record = {run.key: {"files": sums(run.config)}}
    (tmp_path / "val.txt").write_text("b\n")
    assert "val.txt (--data.val-list)" in changed(plan, folder, record)[0]
