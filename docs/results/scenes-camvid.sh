#!/usr/bin/env bash
# The study of docs/results/scenes-camvid: what labels are worth on real images, StreetScenes to CamVid, with the recipe `adapt`
# and without. Give CamVid's folder first; goes on where it was stopped. Further words are those of iidm.study (--jobs 2,
# --budgets 20).
camvid="${1:?the folder of CamVid}"
shift
here="$(dirname "$0")"
exec python -m iidm.study "$here/adapt.toml" --out "$here/scenes-camvid" --seeds 3 --steps 2000 "$@" -- \
    --amp --target-root "$camvid" --model.weights imagenet
