#!/usr/bin/env bash
# The study of docs/results/streetscenes: all methods on StreetScenes at half of the preset's resolution, so that a run takes
# minutes without bfloat16 instructions too. Goes on where it was stopped. Further words are those of iidm.study (--jobs 2).
exec python -m iidm.study "$(dirname "$0")/methods.toml" --out "$(dirname "$0")/streetscenes" --seeds 3 --steps 300 "$@" -- \
    --amp --data.source.resize 72 144 --data.target.resize 72 144 --data.crop-size 64 128 \
    --data.rare-class-min-px 50 --data.rare-class-min-crop-px 25 --optim.warmup-steps 30
