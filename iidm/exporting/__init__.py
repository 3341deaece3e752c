"""A trained network as one file that needs no iidm: what is in it, how it is written, and whether it says the same."""
