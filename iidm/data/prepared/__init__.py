"""Prepared folders: their form, and how they are read."""
