"""Data sets opened: the images of a run, its splits, statistics and checks."""
