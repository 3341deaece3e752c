"""Make the tables of the paper, or a grid of your own, on any data set at any scale.

    iidm study table4 --preset scenes --budgets 20 40 --seeds 3 --out studies/scenes -- --amp
    iidm study my-grid.toml --out DIR --jobs 2         a grid of your own: docs/studies.md
    iidm study table1 --out DIR -- --source-root GTA5 --target-root CITYSCAPES --amp
    iidm study table1 --out /shared/table1 --on ray -- ...    on all machines of a Ray cluster, a GPU a run
    iidm study budget --out DIR -- --data.target.spec camera.toml    how many labels do I need?
    iidm study --list

Every run is a process of its own. What is done is never done again, whichever table asks for it, so the same command
goes on after Ctrl-C, a crash or a kill. DIR gets runs.jsonl (a line a run, to be kept in git) and for each study its
.md, .csv, .json and pictures.
"""

from __future__ import annotations

if __name__ == "__main__":  # first: it reads the command line before anything that takes seconds to import
    from iidm.command import run_command

    run_command("study")

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from iidm.cli import StudyArguments, parse_study, program
from iidm.engine.log import Progress as Bar
from iidm.studies import budget
from iidm.studies.folder import Record, StudyFolder
from iidm.studies.grid import describe_studies, find_study
from iidm.studies.local import LocalProcesses, make_slots
from iidm.studies.named_files import changed, refuse_changed
from iidm.studies.on_ray import RayCluster, connect
from iidm.studies.plan import Plan, Run, Wishes, make_plan
from iidm.studies.preflight import check_data, task_of
from iidm.studies.progress import Progress, counted, say
from iidm.studies.report import Report
from iidm.studies.runner import Failure, Listener, Place, remove_checkpoints, run_missing
from iidm.types import UserError


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    arguments, options = parse_study(argv)
    if arguments.list:
        print(f"{describe_studies()}\n{budget.NAME:10s}  1 row   {budget.ABOUT}")
        return
    if not arguments.study or arguments.out is None:
        raise UserError(f"Give the study and its folder: {program('study')} table4 --out DIR. --list tells them all.")
    wishes = Wishes(arguments.preset, arguments.budgets, arguments.seeds, arguments.steps, tuple(options))
    if arguments.study == budget.NAME:
        runs_follow = not (arguments.dry_run or arguments.report_only)
        study, wishes = budget.ask(wishes, arguments.out, runs_follow=runs_follow)
    else:
        study = find_study(arguments.study)
    plan = make_plan(study, wishes)
    folder = StudyFolder(arguments.out)
    # As the page has it, which says that the same command runs what is missing.
    command = shlex.join(["python", "-m", "iidm.study", *(word for word in argv if word != "--report-only")])
    if arguments.dry_run:
        print(describe_runs(plan, folder.records()))
    elif arguments.report_only:
        records = folder.records()
        if not records:
            raise UserError(f"There is no finished run in {arguments.out}: nothing to report.")
        with suppress(UserError):  # only to leave out what cannot be; the data need not be at hand
            plan = check_data(plan, records, ())
        for line in changed(plan, folder, records):
            say(line)
        finish(Report(plan, folder, command, arguments.strips), records, [])
    else:
        make_place = find_place(arguments, plan)
        with Bar("drawing the built-in scenes, once", quiet=False) as bar:
            plan = check_data(plan, folder.records(), arguments.strips, bar)
        folder.create()
        with folder.lock():
            run(arguments, Report(plan, folder, command, arguments.strips), make_place(plan, folder))


def find_place(arguments: StudyArguments, plan: Plan) -> Callable[[Plan, StudyFolder], Place]:
    """Where the runs are to be computed. Raises UserError where that cannot be."""
    config = plan.cells[0].runs[0].config
    for name, value, least in (
        ("jobs", arguments.jobs, 1),
        ("runs-per-gpu", arguments.runs_per_gpu, 1),
        ("retries", arguments.retries, 0),
    ):
        if value is not None and value < least:
            raise UserError(f"--{name} must be at least {least}, not {value}.")
    if arguments.on == "here":
        slots = make_slots(arguments.jobs or 1, config, runs_per_gpu=arguments.runs_per_gpu)
        return lambda plan, folder: LocalProcesses(folder, slots, arguments.strips)
    share = connect(config, arguments.runs_per_gpu)
    return lambda plan, folder: RayCluster(task_of(plan, folder, arguments.strips), share, arguments.jobs)


def run(arguments: StudyArguments, report: Report, place: Place) -> None:
    """Run what is missing, with the report as it stands after each run. Ends the process with 1 where one failed."""
    plan, folder = report.plan, report.folder
    records = folder.records()
    refuse_changed(plan, folder, records)
    missing = [run for run in plan.runs if run.key not in records]
    for note in (*plan.notes, *moved_data_notes(plan, records)):
        say(note)
    say(f"{plan.study.title}: {len(plan.runs)} runs, {len(plan.runs) - len(missing)} are done")
    progress = Progress(len(plan.runs), len(plan.runs) - len(missing))
    failures: list[Failure] = []

    def on_done(run: Run, record: Record) -> None:
        records[run.key] = record
        if not arguments.keep_checkpoints:
            remove_checkpoints(run, folder)
        report.write(records, failures)
        progress.done(run, record)

    def on_failure(failure: Failure) -> None:
        failures.append(failure)
        progress.failed(failure)

    listener = Listener(on_done, on_failure, progress.again)
    run_missing(missing, folder, place, arguments.retries, listener)
    folder.remove_halves()
    finish(report, records, failures)
    if failures:
        say(f"iidm: {counted(len(failures), 'run')} failed; what was said is above. The same command tries again.")
        sys.exit(1)


def finish(report: Report, records: Mapping[str, Record], failures: Sequence[Failure]) -> None:
    """Draw and write everything, and show the table."""
    for note in report.draw(records):
        say(note)
    report.write(records, failures)
    print(report.table(records))
    for line in report.told(records):
        print(line)
    print(f"everything lies in: {report.folder.root}")


def describe_runs(plan: Plan, records: Mapping[str, Record]) -> str:
    """A line a run, in the order in which they would be run."""
    rows: dict[str, list[str]] = {}
    for cell in plan.cells:
        for run in cell.runs:
            rows.setdefault(run.key, []).append(cell.row.name)
    lines = [
        f"{'done' if run.key in records else '-':5s}{run.title} · {' = '.join(dict.fromkeys(rows[run.key]))}\n"
        f"     {run.command}"
        for run in plan.runs
    ]
    done = sum(run.key in records for run in plan.runs)
    return "\n".join([*lines, f"{len(plan.runs)} runs of {plan.steps} steps, {done} are done"])


def moved_data_notes(plan: Plan, records: Mapping[str, Record]) -> list[str]:
    """A run is known wherever its data lies; that it lay elsewhere may be news, or a mistake."""
    notes = set()
    for run in plan.runs:
        if run.key in records:
            then = records[run.key]["config"]
            for field in ("source_root", "target_root"):
                before, now = then.get(field), getattr(run.config, field)
                if before and now and before != str(now):
                    notes.add(f"runs that are done had --{field.replace('_', '-')} {before}, and are not run again")
    return sorted(notes)
