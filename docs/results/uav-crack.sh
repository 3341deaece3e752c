#!/usr/bin/env bash
# The study of docs/results/uav-crack: thin cracks on drone images, 9, 19 and 38 of 189 labeled, no source. Give the folder of
# the images first; goes on where it was stopped. Further words are those of iidm.study (--jobs 2, --budgets 19).
cracks="${1:?the folder of the crack images}"
shift
here="$(dirname "$0")"
exec python -m iidm.study "$here/target-alone.toml" --out "$here/uav-crack" --seeds 2 --steps 2000 "$@" -- \
    --amp --data.target.spec "$here/uav-crack/cracks.toml" --target-root "$cracks" --model.weights imagenet \
    --data.rare-class-min-px 100 --data.rare-class-min-crop-px 50
