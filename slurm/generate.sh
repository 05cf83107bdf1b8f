#!/usr/bin/env bash
#SBATCH --requeue --open-mode=append --output=%x_%A_%a.log
# Generate images on a SLURM cluster as an array of TASKS jobs with a GPU each: set these, then
# `bash slurm/generate.sh`, with the flags of `semsynth generate`. Each task generates its part, skips
# images that are there, and the last to finish writes the lists; the same command submits a task
# that died again. The images are those of one process, to the byte.
PARTITION=       # empty: the cluster's own
ACCOUNT=         # empty: yours
TASKS=8
GPUS=1           # of each task: one is used; 0 where there are none
CPUS=8           # of each task
MEMORY=32G       # of each task
TIME=12:00:00    # of each task
MAIL=            # an address, for mails about end and failure

set -eu
if [ -z "${SLURM_ARRAY_TASK_ID:-}" ]; then
  command -v sbatch >/dev/null || { echo "error: sbatch: not found; run this on the cluster" >&2; exit 2; }
  cd "$(dirname "$0")/.."
  gpus=(); [ "$GPUS" = 0 ] || gpus=(--gpus="$GPUS")
  exec sbatch --job-name=generate --array=0-$((TASKS - 1)) --nodes=1 --ntasks=1 "${gpus[@]}" \
    --cpus-per-task="$CPUS" --mem="$MEMORY" --time="$TIME" ${PARTITION:+--partition="$PARTITION"} \
    ${ACCOUNT:+--account="$ACCOUNT"} ${MAIL:+--mail-user="$MAIL" --mail-type=END,FAIL} \
    slurm/generate.sh "$@"
fi
. scripts/environment.sh
exec python3 scripts/generate_images.py "$@"
