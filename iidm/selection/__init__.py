"""Which unlabeled images to label next.

What the field found, and what follows from it here:

- With few labels, typical images that differ from each other beat uncertain ones, and uncertainty alone may lose to
  chance (TypiClust, arXiv 2202.02794). Where frames repeat, as in driving, diversity decides (Mittal et al.,
  arXiv 2302.04075). Farthest-point choice (CoreSet, arXiv 1708.00489) takes the outliers first.
- Under a domain shift, clustering features of the target that are weighted by uncertainty beats either alone (CLUE,
  arXiv 2010.08666).
- In segmentation the unit is a class's region of an image, not the image: classes are rare, images hold many (RIPU,
  arXiv 2111.12940; D2ADA, arXiv 2202.06484, both choose regions class by class).

So an image is what the networks see of each class in it: a mean feature, a share of the pixels, an uncertainty
(`regions.py`). The choice is a greedy weighted k-medoids over these (`coverage.py`): in turn the image that covers most
of what no labeled image covers yet, where a pixel counts by its uncertainty and by how rare its class is. Images that
resemble a labeled or chosen one, such as the next frames of a clip, have nothing left to add.
"""
