#!/usr/bin/env bash
# The study of docs/results/streetscenes: all methods on StreetScenes, with a MobileNetV2 that starts from ImageNet weights, so
# that a run takes minutes without bfloat16 instructions too. Goes on where it was stopped. A first word makes another table
# there: `table4` the losses with 5 and 20 labeled images, `table6` their weights, `adapt` that recipe with 5, 20 and 100;
# further words are those of iidm.study (--jobs 2). Runs that tables share are done once. Methods, table4 and table6 have the
# network that was the presets' then, so that they compare with docs/results/before.md: DeepLabV2's head at stride 16.
here="$(dirname "$0")"
grid="$here/methods.toml" budgets=(20) recipe=daformer
network=(--model.head deeplabv2 --model.output-stride 16 --model.dropout 0)
case "${1:-}" in
    table4) grid=table4 budgets=(5 20) && shift ;;
    table6) grid=table6 && shift ;;
    adapt) grid="$here/streetscenes/adapt.toml" budgets=(5 20 100) recipe=adapt network=() && shift ;;
esac
exec python -m iidm.study "$grid" --preset scenes --budgets "${budgets[@]}" --out "$here/streetscenes" --seeds 3 --steps 1000 \
    "$@" -- --amp --recipe "$recipe" --model.backbone mobilenet_v2 --model.weights imagenet "${network[@]}" \
    --optim.warmup-steps 50 --data.source-batch 2 --data.target-batch 2 --data.unlabeled-batch 2
