"""Studies: grids of runs, what is missing of them, and the tables that come of them. `iidm.study` is the way in."""
