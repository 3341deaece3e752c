#!/usr/bin/env bash
# The paper's Table 3 in small: HRDA and MIC with the mixes and without, on StreetScenes at its full resolution (twice that of
# the other studies here), 20 labeled images for the rows that have labels, 3 seeds, MobileNetV2 from ImageNet weights. Goes
# on where it was stopped; further words are those of iidm.study (--jobs 2).
#
# A head with logits every 4 pixels, as HRDA's windows lie on the cells of the logits. The teacher's decay is 0.99 in place of
# 0.999, which over 1000 steps would be the mean of all of them. Crops are as high as the images, as HRDA's are.
here="$(dirname "$0")"
exec python -m iidm.study "$here/table3.toml" --out "$here/table3" --seeds 3 --steps 1000 "$@" -- \
    --amp --recipe daformer --model.backbone mobilenet_v2 --model.weights imagenet --model.head segformer \
    --model.output-stride 32 --optim.warmup-steps 50 --teacher.ema-decay 0.99 --eval.mode slide \
    --data.source.resize 256 512 --data.target.resize 256 512 --data.crop-size 256 256 \
    --data.rare-class-min-px 800 --data.rare-class-min-crop-px 400 \
    --data.source-batch 2 --data.target-batch 2 --data.unlabeled-batch 2
