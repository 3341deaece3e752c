#!/usr/bin/env bash
# The study of docs/results/camvid-dusk: the paper's Table 4 on CamVid, day to dusk, 3 labeled dusk frames, the preset's values of then.
# The table that is committed is of networks as training left them (docs/results/before.md); this makes it anew with the
# statistics of the target, and the network of then (DeepLabV2's head at stride 16). Give CamVid's folder first; goes on where it
# was stopped. Further words are those of iidm.study (--jobs 2).
camvid="${1:?the folder of CamVid}"
shift
exec python -m iidm.study table4 --preset camvid-dusk --budgets 3 --out "$(dirname "$0")/camvid-dusk" --seeds 3 "$@" -- \
    --amp --recipe paper --model.head deeplabv2 --model.output-stride 16 --model.dropout 0 --mixing.pasted-weight one \
    --augment.jitter-strength 0.05 --source-root "$camvid" --target-root "$camvid"
