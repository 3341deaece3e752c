"""Predicted labels become annotation files that labeling tools import."""
