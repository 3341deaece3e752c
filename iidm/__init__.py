"""iidm: semantic segmentation for a target domain of which only a few images are labeled."""

__version__ = "0.1.0"
