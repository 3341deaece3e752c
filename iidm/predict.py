"""Label images and videos with a trained run.

    iidm predict RUN image.jpg folder/ clip.mp4 ... --out DIR
    iidm predict RUN orthophoto.png --out DIR --mode slide --window 512 512
    iidm predict RUN folder/ --out DIR --write ids confidence --ids dataset --annotations coco

For each image DIR gets <name>.ids.png (train ids, a palette of class colours), <name>.color.png and <name>.overlay.png,
all of the image's own size, unless --write says otherwise; for each video <name>.overlay.mp4. Images may have any size.
Folders are read as in training; results of an earlier call are left aside. What cannot be read is named at the end,
with exit status 2. All of it: docs/predict.md.
"""

from __future__ import annotations

if __name__ == "__main__":  # first: it reads the command line before anything that takes seconds to import
    from iidm.command import run_command

    run_command("predict")

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

from tqdm import tqdm

from iidm.cli import PredictArguments, parse_arguments
from iidm.data import (
    Input,
    decoding_threads,
    find_inputs,
    target_classes,
    target_ids,
    target_unlabeled,
)
from iidm.data.files.common import counted
from iidm.engine.runtime import pick_device
from iidm.evaluation import with_windows
from iidm.prediction.flow import threads_shared_by
from iidm.prediction.images import Annotations, ImageWork, label_images
from iidm.prediction.looking import Look, predict
from iidm.prediction.pictures import Pictures
from iidm.prediction.plans import Planner
from iidm.prediction.video_files import pyav
from iidm.prediction.videos import VideoWish, label_video
from iidm.runs import description_notes, load_network, open_run, run_precision
from iidm.types import UserError

__all__ = ["main", "predict"]


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    arguments = parse_arguments(PredictArguments, "predict", argv)
    _check(arguments)
    device = pick_device(arguments.device)
    config, checkpoint = open_run(arguments.run)
    for line in description_notes(arguments.run):
        print(line, file=sys.stderr)
    config = with_windows(config, arguments.mode, arguments.window, arguments.stride)
    classes = target_classes(config)
    own_ids, id_notes = target_ids(config) if arguments.ids == "dataset" else (None, [])
    network = load_network(config, checkpoint, arguments.network, len(classes), device)
    amp_dtype = run_precision(config, arguments.precision, device)
    inputs, notes = find_inputs(arguments.images)
    images, videos = [one for one in inputs if not one.is_video], [one for one in inputs if one.is_video]
    for note in [*notes, *id_notes, *_video_notes(arguments, videos)]:
        print(note, file=sys.stderr)
    arguments.out.mkdir(parents=True, exist_ok=True)
    work = ImageWork(
        Look(
            network,
            amp_dtype,
            config.model.align_corners,
            with_confidence="confidence" in arguments.write,
            with_probabilities="probabilities" in arguments.write,
        ),
        Pictures(arguments.write, classes, own_ids),
        Annotations(arguments.annotations, arguments.tolerance_px, arguments.least_region_px, target_unlabeled(config)),
        arguments.out,
    )
    planner = Planner(config, _say, bounds_memory=arguments.mode is None)
    bad: list[str] = []
    jobs = arguments.jobs or decoding_threads()
    with threads_shared_by(jobs) if device.type == "cpu" else ExitStack():
        if images:
            with _bar("image", len(images)) as bar:
                counts = label_images(images, planner.of_image, work, jobs, bar.update)
            bad += counts.problems
            if counts.done:
                count = counted(counts.done, "image")
                print(f"labeled {count} with the {arguments.network} of {checkpoint}; results in {arguments.out}")
            for line in counts.lines:
                print(line)
        bad += _label_videos(videos, planner, work, arguments, jobs)
    _tell(bad, len(images), len(videos))


def _label_videos(
    videos: Sequence[Input], planner: Planner, work: ImageWork, arguments: PredictArguments, jobs: int
) -> list[str]:
    """Label videos one after the other; returns what is wrong with them."""
    bad = []
    for video in videos:
        with ExitStack() as stack:

            def start(shape: tuple[int, int], count: int | None) -> Callable[[], object]:
                planner.tell(planner.of_frames(video, shape))  # noqa: B023 (called before the next one)
                return stack.enter_context(_bar("frame", count)).update  # noqa: B023

            wish = VideoWish(arguments.every, arguments.frames)
            try:
                done = label_video(video, partial(planner.of_frames, video), work, wish, jobs, start)
            except UserError as error:
                bad.append(str(error))
                continue
        print(done.line)
        if done.problem:
            bad.append(done.problem)
    return bad


def _check(arguments: PredictArguments) -> None:
    """Raise UserError for words that do not fit together."""
    if not arguments.images:
        raise UserError("Name images, or folders of images, after the run: iidm predict RUN IMAGES --out DIR.")
    if not arguments.write and not arguments.annotations:
        raise UserError("Nothing is to be written: --write names pictures, --annotations files of labeling tools.")
    if arguments.ids == "dataset" and "ids" not in arguments.write:
        raise UserError("--ids dataset says how the ids are written, and --write does not name ids.")
    for name in ("every", "jobs", "least_region_px"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} must be 1 or more, not {value}.")
    if not 0 <= arguments.tolerance_px <= MOST_TOLERANCE_PX:
        raise UserError(f"--tolerance-px must be 0 to {MOST_TOLERANCE_PX}, not {arguments.tolerance_px:g}.")


MOST_TOLERANCE_PX = 100
"""Beyond that nothing of a shape is left in an image."""


def _video_notes(arguments: PredictArguments, videos: Sequence[Input]) -> list[str]:
    """What videos get other than images. Raises UserError where they would get nothing, and where PyAV is missing."""
    if not videos:
        return []
    pyav()
    if "overlay" not in arguments.write and not (arguments.frames and arguments.write):
        raise UserError(
            f"Of {videos[0].path} nothing would be written: --write overlay gives a video, and --frames what --write"
            " names of each frame."
        )
    return [f"annotations are written of images only, not of {counted(len(videos), 'video')}"][
        : bool(arguments.annotations)
    ]


def _bar(unit: str, total: int | None) -> tqdm:
    """A progress bar on a terminal's stderr."""
    return tqdm(total=total, unit=unit, disable=None, leave=False, mininterval=0.5, dynamic_ncols=True)


def _say(line: str) -> None:
    """Print a line above the progress bar."""
    tqdm.write(line, file=sys.stdout)


def _tell(bad: Sequence[str], images: int, videos: int) -> None:
    """Tell what could not be labeled. Raises UserError where there is anything."""
    if len(bad) == images + videos == 1:
        raise UserError(bad[0])
    for line in bad:
        print(line, file=sys.stderr)
    if bad:
        of = " and ".join(counted(count, what) for count, what in ((images, "image"), (videos, "video")) if count)
        raise UserError(f"{len(bad)} of {of} could not be labeled; each is named above.")
