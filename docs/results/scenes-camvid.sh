#!/usr/bin/env bash
# The study of docs/results/scenes-camvid: what labels are worth on real images, StreetScenes to CamVid, with the recipe `adapt`
# and without. Give CamVid's folder first; goes on where it was stopped. The word `twenty` after it makes the table of 20 labels
# with a fourth seed, `longer` that of 4000 steps with 20 labels (docs/results/scenes-camvid-longer). Further words are those of
# iidm.study (--jobs 2, --budgets 20).
camvid="${1:?the folder of CamVid}"
shift
here="$(dirname "$0")"
grid=adapt out=scenes-camvid steps=2000 seeds=3
case "${1:-}" in
    twenty) grid=twenty seeds=4 && shift ;;
    longer) grid=longer out=scenes-camvid-longer steps=4000 seeds=4 && shift ;;
esac
exec python -m iidm.study "$here/$grid.toml" --out "$here/$out" --seeds "$seeds" --steps "$steps" "$@" -- \
    --amp --target-root "$camvid" --model.weights imagenet
