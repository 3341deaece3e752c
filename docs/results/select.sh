#!/usr/bin/env bash
# Does it pay to choose the images that are labeled (iidm select)? 5, 10 and 20 labels, three seeds, against chance and evenly
# spaced images. `bash docs/results/select.sh streetscenes`, or `camvid FOLDER` with the folder of CamVid. Goes on where it was
# stopped. $STEPS (1000) and $WEIGHTS (imagenet) may be set; further words are those of label_next.py (--seeds 1, --budgets 5 10).
here="$(dirname "$0")"
case "${1:-streetscenes}" in
    camvid) start="--preset scenes-camvid --target-root ${2:?the folder of CamVid} --max-steps ${STEPS:-2000}"; name=select-camvid; shift 2 ;;
    *) start="--preset scenes --max-steps ${STEPS:-1000} --model.backbone mobilenet_v2 --model.head deeplabv2 --model.output-stride 16
        --model.dropout 0 --optim.warmup-steps 50
        --data.source-batch 2 --data.target-batch 2 --data.unlabeled-batch 2"; name=select-streetscenes; shift ;;
esac
exec python "$here/label_next.py" --out "$here/$name" --start "$start --amp --method iidm --model.weights ${WEIGHTS:-imagenet}" "$@"
