"""One HTML file on trained runs, for people: what `report.py` is made of."""
