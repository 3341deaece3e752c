#!/usr/bin/env bash
# The study of docs/results/streetscenes: all methods on StreetScenes, with a MobileNetV2 that starts from ImageNet weights, so
# that a run takes minutes without bfloat16 instructions too. Goes on where it was stopped. A first word `table4` makes that
# table alone, of the same runs; further words are those of iidm.study (--jobs 2).
here="$(dirname "$0")"
grid="$here/methods.toml"
[ "${1:-}" = table4 ] && grid=table4 && shift
exec python -m iidm.study "$grid" --preset scenes --budgets 20 --out "$here/streetscenes" --seeds 3 --steps 1000 "$@" -- \
    --amp --model.backbone mobilenet_v2 --model.weights imagenet --model.output-stride 16 --optim.warmup-steps 50 \
    --data.source-batch 2 --data.target-batch 2 --data.unlabeled-batch 2
