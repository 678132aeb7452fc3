#!/usr/bin/env bash
# From public CTs to a leaderboard: LIDC-IDRI in the split of X2CT-GAN, one bundle and all baselines (`make lidc`).
# Each step goes on where it stopped: give the same command again. Variables, with what they are if not set:
#   LIDC=data/lidc              folder for all of it
#   BUNDLE=direct_regression    bundle, with its overlays: direct_regression+small; TRAINING: what it is trained by, +smoke
#   SIZE=64                     voxels along each side of the labels
#   SHARDS                      prepare by a Slurm array of so many tasks, and wait for it
#   FETCH, PREPARE, SPLIT, TRAIN, RECONSTRUCT, BOARD    more flags of a step, such as FETCH="--limit 100"
set -euo pipefail

python=${PYTHON:-python} folder=${LIDC:-data/lidc} bundle=${BUNDLE:-direct_regression} size=${SIZE:-64}
name=$(basename "${bundle//+/_}") here=$(dirname "$0")
datalist=$folder/cases/x2ct.json output=$folder/$name
trct() { "$python" -m trct_monai "$@"; }

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

echo "[3/6] the published split; LIDC-IDRI-0442, who is on both sides, goes to the test"
trct split --data "$folder/cases" --by lists --train_list "$folder/cts/x2ct_train.csv" \
    --test_list "$folder/cts/x2ct_test.csv" --leaks_to test --output "$datalist" ${SPLIT:-}

echo "[4/6] the baselines"
trct leaderboard --datalist "$datalist" --output "$folder/leaderboard" ${BOARD:-}

echo "[5/6] training of $bundle"
resume=False
[[ ! -f $output/resume/checkpoint.pt ]] || resume=True
trct run "${TRAINING:-$bundle}" training --datalist "$datalist" --output_dir "$output" \
    --ckpt_path "$output/model.pt" --resume "$resume" ${TRAIN:-}

echo "[6/6] the leaderboard with $bundle, and with what earlier runs trained in this folder"
trct run "$bundle" --datalist "$datalist" --output_dir "$output/predictions" --ckpt_path "$output/model.pt" \
    ${RECONSTRUCT:-}
methods=()
for model in "$folder"/*/model.pt; do
    trained=$(dirname "$model")
    methods+=("$(basename "$trained")=$trained/predictions")
done
trct leaderboard --datalist "$datalist" --output "$folder/leaderboard" \
    --methods "$(IFS=, && echo "${methods[*]}")" ${BOARD:-}
