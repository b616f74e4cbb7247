#!/usr/bin/env bash
# From nothing to predicted masks with nnU-Net v2 and scribbles, on generated phantoms (CPU, about
# two minutes): bash examples/nnunet/run.sh FOLDER
# With data of your own leave out the first step; on a GPU leave out "-device cpu"; to train in
# earnest take nnUNetTrainerACCL in the place of nnUNetTrainerACCL_quick.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cd "$1"
export nnUNet_raw=$PWD/raw nnUNet_preprocessed=$PWD/preprocessed nnUNet_results=$PWD/results
export nnUNet_extTrainer=$here # where nnU-Net looks for trainers besides its own
# Loading runs in helper processes; data so small need none. Planning wants at least one.
export nnUNet_n_proc_DA=1

python "$here/make_dataset.py"
nnUNetv2_plan_and_preprocess -d 901 -c 2d --verify_dataset_integrity -np 1 -npfp 1
nnUNet_n_proc_DA=0 nnUNetv2_train 901 2d 0 -tr nnUNetTrainerACCL_quick -device cpu
nnUNetv2_predict -d 901 -c 2d -f 0 -tr nnUNetTrainerACCL_quick -device cpu \
  -i raw/Dataset901_Scribbles/imagesTs -o predicted -npp 1 -nps 1
ls predicted
