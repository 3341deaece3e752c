#!/usr/bin/env bash
# The paper's Table 3 in small: HRDA and MIC with the mixes and without, on StreetScenes at its full resolution (twice that of
# the other studies here), 20 labeled images for the rows that have labels, 3 seeds, MobileNetV2 from ImageNet weights. Goes
# on where it was stopped; further words are those of iidm.study (--jobs 2).
here="$(dirname "$0")"
exec python -m iidm.study table3 --preset scenes --budgets 20 --out "$here/table3" --seeds 3 --steps 1000 "$@" -- \
    --amp --recipe daformer --model.backbone mobilenet_v2 --model.weights imagenet --model.output-stride 16 --optim.warmup-steps 50 \
    --data.source.resize 256 512 --data.target.resize 256 512 --data.crop-size 192 384 \
    --data.rare-class-min-px 800 --data.rare-class-min-crop-px 400 \
    --data.source-batch 2 --data.target-batch 2 --data.unlabeled-batch 2
