"""iidm: semantic segmentation for a target domain of which only a few images are labeled."""

__version__ = "0.1.0"

from .processes import end_with_the_main_process

end_with_the_main_process()  # a worker process may wait for its main process for good if that is killed
