#!/usr/bin/env bash
# From public CTs to a leaderboard: LIDC-IDRI in the split of X2CT-GAN, one bundle and all baselines (`make lidc`).
# Each step goes on where it stopped: give the same command again. Variables, with what they are if not set:
#   LIDC=data/lidc              folder for all of it
#   BUNDLE=direct_regression    bundle, with its overlays: direct_regression+small; TRAINING: what it is trained by, +smoke
#   SIZE=64                     voxels along each side of the labels
#   SHARDS                      prepare by a Slurm array of so many tasks, and wait for it
#   FETCH, PREPARE, SPLIT, TRAIN, RECONSTRUCT, BOARD    more flags of a step, such as FETCH="--limit 100"
# One folder has one set of cases, and a bundle's weights there are of these: another SIZE or PREPARE, and other cases or
# flags than a training began with, are refused, be it a flag for speed alone. Give a trial a LIDC of its own.
set -euo pipefail

python=${PYTHON:-python} folder=${LIDC:-data/lidc} bundle=${BUNDLE:-direct_regression} size=${SIZE:-64}
name=$(basename "${bundle//+/_}") here=$(dirname "$0")
datalist=$folder/cases/x2ct.json output=$folder/$name
trct() { "$python" -m trct_monai "$@"; }
refuse() { echo "error: $*" >&2 && exit 2; }
# Whether a file has this text and nothing else.
says() { [[ -f $1 && $(<"$1") == "$2" ]]; }

settings="SIZE=$size PREPARE=${PREPARE:-}" made=$folder/cases/settings.txt
[[ ! -f $made ]] || says "$made" "$settings" ||
    refuse "$folder/cases was made with $(<"$made"), not $settings; remove it or choose another LIDC"

# Unquoted on purpose: a variable of flags holds several words.
echo "[1/6] the CTs of the published split, with their licences"
trct fetch --collection lidc_idri --split x2ct --output "$folder/cts" ${FETCH:-}

echo "[2/6] cases: cubes of ${size} voxels a side and their radiographs"
prepare=(--input "$folder/cts" --output "$folder/cases" --size "$size" ${PREPARE:-})
if [[ ${SHARDS:-} ]]; then
    sbatch --wait --array="1-$SHARDS" "$here/slurm/prepare.sbatch" "${prepare[@]}"
else
    trct prepare "${prepare[@]}"
fi
echo "$settings" >"$made"

echo "[3/6] the published split; LIDC-IDRI-0442, who is on both sides, goes to the test"
trct split --data "$folder/cases" --by lists --train_list "$folder/cts/x2ct_train.csv" \
    --test_list "$folder/cts/x2ct_test.csv" --leaks_to test --output "$datalist" ${SPLIT:-}
cases="$settings $({ sha256sum || shasum -a 256; } <"$datalist" 2>/dev/null)"
made_from="$cases BUNDLE=$bundle TRAINING=${TRAINING:-} TRAIN=${TRAIN:-}" resume=False
if [[ -f $output/resume/checkpoint.pt ]]; then
    says "$output/made_from.txt" "$made_from" ||
        refuse "$output was trained on other cases or by other settings; remove it or choose another LIDC"
    resume=True
fi

echo "[4/6] the baselines"
trct leaderboard --datalist "$datalist" --output "$folder/leaderboard" ${BOARD:-}

echo "[5/6] training of $bundle"
mkdir -p "$output"
rm -f "$output/predictions.txt"
echo "$made_from" >"$output/made_from.txt"
trct run "${TRAINING:-$bundle}" training --datalist "$datalist" --output_dir "$output" \
    --ckpt_path "$output/model.pt" --resume "$resume" ${TRAIN:-}

echo "[6/6] the leaderboard with $bundle, and with what earlier runs trained in this folder"
trct run "$bundle" --datalist "$datalist" --output_dir "$output/predictions" --ckpt_path "$output/model.pt" \
    ${RECONSTRUCT:-}
echo "$cases" >"$output/predictions.txt"
methods=()
for model in "$folder"/*/model.pt; do
    trained=$(dirname "$model")
    if says "$trained/predictions.txt" "$cases"; then
        methods+=("$(basename "$trained")=$trained/predictions")
    else
        echo "left out: $trained has no complete predictions of these cases; give its BUNDLE again"
    fi
done
trct leaderboard --datalist "$datalist" --output "$folder/leaderboard" \
    --methods "$(IFS=, && echo "${methods[*]}")" ${BOARD:-}
