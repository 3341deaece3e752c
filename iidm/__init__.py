"""iidm: semantic segmentation for a target domain of which only a few images are labeled."""

import os

__version__ = "0.1.0"

if "IIDM_MAIN_PROCESS" in os.environ:  # a worker, which may wait for good for a main process that is killed
    from .processes import end_with_the_main_process

    end_with_the_main_process()
