"""Whatever people bring, a run reads what they think it reads, or says in one line what is wrong.

Each case is a drawn folder of images and labels with faults in it (messy_folders.py). It goes through all that commands
do with data: opening, checks, two training batches, evaluation, preparing, prediction's list, inspection.
IIDM_CAMPAIGN=1000 runs more cases than the usual 50, other ones each time; the counts are printed (-s).
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from loaders import CPU
from messy_cases import ASIDE, GOOD_LABELS, Case, Folder, cases, composed
from messy_folders import Known, fits, shown
from messy_runs import certain_faults, config_of, folders_of, is_doubtful, may_fail, write
from watching import ends_in_time, quiet_and_childless, strict_text

import iidm.inspect
from iidm.cli.running import run_main
from iidm.config import Config
from iidm.data import (
    Domains,
    EvalLoader,
    TrainLoader,
    changes_since,
    check_data,
    check_prepared,
    find_images,
    make_plan,
    open_domains,
    prepare,
    read_image,
    write_splits,
)
from iidm.data.files.listing import Aside
from iidm.data.files.whole import check_picture
from iidm.data.prepared.folder import read_manifest
from iidm.engine.log import RunLog
from iidm.types import UserError

CASES = int(os.environ.get("IIDM_CAMPAIGN", "50"))
MOST_S = 30
"""That a case may take."""
_CODE = re.compile(r"Traceback|Error\(|Path\(|<[\w.]+ object|array\(|dtype=|frozenset|Sample\(|None\b")
"""What only programmers understand."""


@pytest.fixture(scope="module")
def ends() -> Iterator[Counter[str]]:
    """How the cases ended, counted; printed at the end."""
    counts: Counter[str] = Counter()
    yield counts
    print("", *(f"{count:6} {end}" for end, count in counts.most_common()), sep="\n")


@settings(
    max_examples=CASES,
    derandomize=CASES <= 50,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(case=cases())
def test_a_folder_is_read_whole_or_refused_in_one_line(ends: Counter[str], case: Case) -> None:
    with tempfile.TemporaryDirectory() as folder, ends_in_time(MOST_S), quiet_and_childless():
        ends[run(case, Path(folder).resolve())] += 1


def run(case: Case, root: Path) -> str:
    """Take a case through all commands' ways to its data; returns how training's ended."""
    known = write(case, root)
    for name, about in known.items():
        reads_alike(name, about)
        finds_alike(folders_of(case)[name], about)
    inspects_in_words(root)
    config = None
    try:
        config = config_of(case, root)
        domains = open_domains(config)
        checked = check_data(domains, config.data)
    except UserError as error:
        why = plain(error)
        assert certain_faults(case) or may_fail(case), f"refused without a fault: {why}"
        if config is not None:
            prepares(case, config, root, is_read=False)
        return f"refused: {kind_of(why)}"
    assert not certain_faults(case), f"read in spite of {certain_faults(case)}"
    nothing_is_dropped(case, domains, known)
    labels_are_kept(case, domains, known)
    remembers_names(domains, [*domains.notes, *checked.notes], root / "run")
    trains_and_evaluates(case, config, domains, checked.damaged)
    prepares(case, config, root, is_read=True)
    return "read, with skipped files" if checked.damaged else "read"


def plain(error: UserError) -> str:
    """The message of an error that users understand."""
    text = str(error)
    assert text and "\n" not in text and not _CODE.search(text), text
    assert "/" in text or "--" in text or "'" in text or "has no" in text, f"names nothing: {text}"
    return text


def kind_of(text: str) -> str:
    """The error without what differs from case to case."""
    text = re.sub(r"/\S+", "FILE", text)
    return re.sub(r"'[^']*'|\d+", "*", text)[:90]


def reads_alike(name: str, known: Known) -> None:
    """Prediction reads those images, upright, that the check calls good."""
    split = "train" if name == "source" else name
    for path, picture in known.images.items():
        try:
            size: Any = check_picture(Path(path), "image", read_all=True).size
        except UserError as error:
            plain(error)
            size = None
        try:
            image = read_image(Path(path))
        except UserError as error:
            plain(error)
            assert size is None or picture.damage == "middle", f"the check reads {path}, prediction does not: {error}"
            continue
        assert size is not None, f"prediction reads {path}, the check does not"
        assert image.shape == (*size, 3)
        if picture.damage == "none":
            upright = shown(picture, split)
            if picture.kind == "bit png":
                upright = np.where(upright == 2, 2, 0).astype(np.uint8)
            assert fits(image, upright) > 0.98, f"{path} is not upright"


def finds_alike(folder: Folder, known: Known) -> None:
    """Prediction finds the images of a folder, and gives each a name of its own."""
    try:
        found = find_images([known.folder])
    except UserError as error:
        plain(error)
        assert not known.images, error
        return
    names = [name for _, name in found.images]
    assert len(set(names)) == len(names)
    if folder.labels != "beside":  # it cannot know which of the pictures are labels
        paths = {composed(os.path.realpath(path)) for path, _ in found.images}
        assert paths == {composed(path) for path in known.images}


def nothing_is_dropped(case: Case, domains: Domains, known: dict[str, Known]) -> None:
    """Every image is in a set of the run, and what is none is counted in a note."""
    sets = {
        "source": [domains.source],
        "train": [domains.labeled, domains.unlabeled, domains.val if case.val_count else None],
        "val": [domains.val],
    }
    for name, about in known.items():
        if name == "val" and case.val_count is not None:
            continue
        samples = [sample for dataset in sets[name] if dataset is not None for sample in dataset.samples]
        got = [os.path.realpath(sample.image) for sample in samples]
        if name == "train":
            assert len(set(got)) == len(got), "an image is in two sets"
        strangers = sorted(set(got) - set(about.images))
        assert not strangers, f"{name}: these are no images: {strangers}"
        twins = Counter(composed(path) for path in about.images)
        kept = {composed(path) for path in got}
        lost = [path for path in about.images if composed(path) not in kept]
        assert not lost, f"{name}: dropped without a word: {lost}"
        doubles = sum(twins.values()) - len(twins)
        aside = about.aside + Counter({"name in two Unicode forms": doubles} if doubles else {})
        words = Aside(about.folder, aside).words()
        notes = [note for dataset in sets[name] if dataset is not None for note in (*dataset.notes, *domains.notes)]
        assert not words or f"{about.folder}: {words} left aside" in notes, (words, notes)


def labels_are_kept(case: Case, domains: Domains, known: dict[str, Known]) -> None:
    """Every image has the label that was drawn for it, pixel for pixel, and none loses it."""
    sets = {"source": domains.source, "train": domains.labeled, "val": None if case.val_count else domains.val}
    for name, folder in folders_of(case).items():
        dataset = sets[name]
        if dataset is None:
            continue
        pictures = {composed(path): picture for path, picture in known[name].images.items()}
        labeled = {}
        for sample in dataset.samples:
            path = composed(os.path.realpath(sample.image))
            owner = folder.owner(pictures[path])
            assert owner is not None, f"{sample.image} has a label that nobody drew"
            labeled[path] = owner
            if owner.label in GOOD_LABELS and sample.label is not None:
                ids = shown(pictures[path], "train" if name == "source" else name)
                share = (dataset.load_label(sample) == ids).mean()
                assert share == 1 or (folder.labels == "coco" and share > 0.9), f"{sample.label}: {share:.0%} are right"
        owners = {path: folder.owner(picture) for path, picture in pictures.items()}
        wanted = {path for path, owner in owners.items() if owner is not None and owner.label != "jpeg"}
        is_whole = name != "train" or (case.labeled_count is None and case.val_count is None)
        assert not is_whole or wanted <= set(labeled), f"{name}: {wanted - set(labeled)} lost their labels"


def remembers_names(domains: Domains, notes: Sequence[str], run_dir: Path) -> None:
    """Names go into RUN/splits and come back; notes go into RUN/notes.txt."""
    write_splits(domains, run_dir)
    assert changes_since(domains, run_dir) == []
    with RunLog(run_dir, total_steps=1, start_step=0, quiet=False, tensorboard=False) as log:
        for note in notes:
            assert not _CODE.search(note), note
            with contextlib.redirect_stderr(io.StringIO()):
                log.note(note)


def trains_and_evaluates(case: Case, config: Config, domains: Domains, damaged: Any) -> None:
    """Two batches and an evaluation, with labels that fit to their images."""
    exact = not any(is_doubtful(p) for folder in folders_of(case).values() for p in folder.pictures)
    try:
        with TrainLoader(domains, config.data, seed=0, device=CPU, threads=1, damaged=damaged) as loader:
            for batch in islice(loader, 2):
                for part in (batch.source, batch.target):
                    for image, label in zip(*(part or ((), ())), strict=True):
                        share = fits(image.numpy(), label.numpy())
                        assert not exact or share > 0.7, f"a label of another image: {share:.0%} fit"
        if domains.val is not None:
            with EvalLoader(domains.val, device=CPU, batch_size=2, threads=1) as evaluation:
                for scored in evaluation:
                    if scored.image.shape[1:3] == scored.label.shape[1:3]:
                        for image, label in zip(scored.image, scored.label, strict=True):
                            share = fits(image.numpy(), label.numpy())
                            assert not exact or share > 0.7, f"a validation label of another image: {share:.0%} fit"
    except UserError as error:
        plain(error)
        assert not exact, f"the check passes what training refuses: {error}"


def prepares(case: Case, config: Config, root: Path, *, is_read: bool) -> None:
    """A prepared target holds what training reads, and trains."""
    out = root / "prepared"
    try:
        plan = make_plan(config.data.target, config.target_root, out, image_format=case.image_format)  # type: ignore[arg-type]
        prepare(plan, jobs=1, skip_damaged=case.skip_damaged)
    except UserError as error:
        why = plain(error)
        doubtful = [p for f in (case.train, case.val) if f for p in f.pictures if is_doubtful(p) or p.is_broken]
        assert not is_read or doubtful or case.val_count is not None, f"training reads it, preparing does not: {why}"
        return
    broken = [p for f in (case.train, case.val) if f for p in f.pictures if p.is_broken and p.kind not in ASIDE]
    assert not broken or case.skip_damaged, f"prepared in spite of {broken}"
    count, problems = check_prepared(out, jobs=1)
    assert not problems, problems
    assert count == sum(len(dataset.samples) for dataset in plan.datasets.values()) - len(skipped(out))
    if not is_read:
        return
    prepared = Config(data=config.data, loss=config.loss, source_root=config.source_root, target_root=out)
    try:
        domains = open_domains(prepared)
        checked = check_data(domains, prepared.data)
    except UserError as error:
        plain(error)
        assert skipped(out), f"training reads it as it is, and not prepared: {error}"
        return
    trains_and_evaluates(case, prepared, domains, checked.damaged)


def skipped(out: Path) -> Sequence[str]:
    """Images that preparing left out."""
    return read_manifest(out).skipped


def inspects_in_words(root: Path) -> None:
    """`iidm inspect` tells what is there, or one line."""
    for home in ("source", "target"):
        if (root / home).exists():
            said, refused = strict_text(), io.StringIO()
            words = [str(root / home), "--write", str(root / f"{home} inspected.toml")]
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(refused):
                try:
                    run_main(iidm.inspect.main, words)
                except SystemExit:
                    plain(UserError(refused.getvalue().removeprefix("iidm: ").removesuffix("\n")))
            said.flush()
            text = said.buffer.getvalue().decode()  # type: ignore[attr-defined]
            assert not _CODE.search(text), text
