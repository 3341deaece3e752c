"""Labeling images and videos with a trained network: what `iidm.predict` is made of."""
