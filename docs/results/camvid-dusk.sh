#!/usr/bin/env bash
# The studies of docs/results/camvid-dusk, CamVid from day to dusk with 3 labeled dusk frames. Give CamVid's folder first; goes on
# where it was stopped. Alone: the paper's Table 4 with the preset's values and network of before (DeepLabV2's head at stride 16),
# with the statistics of the target. With the word `adapt` after the folder: the preset as it is. Further words are those of
# iidm.study (--jobs 2).
camvid="${1:?the folder of CamVid}"
shift
here="$(dirname "$0")"
grid=table4
values=(--recipe paper --model.head deeplabv2 --model.output-stride 16 --model.dropout 0 --mixing.pasted-weight one
    --augment.jitter-strength 0.05)
case "${1:-}" in
    adapt) grid="$here/camvid-dusk/adapt.toml" values=() && shift ;;
esac
exec python -m iidm.study "$grid" --preset camvid-dusk --budgets 3 --out "$here/camvid-dusk" --seeds 3 "$@" -- \
    --amp "${values[@]}" --source-root "$camvid" --target-root "$camvid"
