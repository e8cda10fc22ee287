# shellcheck shell=bash
# Who starts the jobs of sharded stages (3, 4, 6, 12), with ESPnet's names. path.sh comes first.
#   local  processes of this machine
#   slurm  a Slurm job array a stage: options of sbatch behind it, for your cluster
#   kaldi  Kaldi's scripts, where utils/ is linked (inside an ESPnet checkout): run.pl, slurm.pl or
#          queue.pl, with conf/slurm.conf or conf/queue.conf by their --config
cmd_backend="${cmd_backend:-local}"

case "${cmd_backend}" in
local)
    train_cmd="" cuda_cmd="" decode_cmd=""
    ;;
slurm)
    slurm_array="$(printf %q "${SPIRE_ROOT}/egs2/spire/slurm_array.sh")"
    train_cmd="${slurm_array} --cpus-per-task 4 --mem 16G"
    cuda_cmd="${slurm_array} --cpus-per-task 8 --mem 64G --gres gpu:1"
    decode_cmd="${train_cmd}"
    ;;
kaldi)
    kaldi_cmd="${kaldi_cmd:-utils/slurm.pl}"
    train_cmd="${kaldi_cmd} --mem 16G"
    cuda_cmd="${kaldi_cmd} --mem 64G --gpu 1"
    decode_cmd="${train_cmd}"
    ;;
*)
    echo "error: cmd.sh: cmd_backend ${cmd_backend}: choose local, slurm or kaldi" >&2
    exit 1
    ;;
esac
# On a CPU, on a GPU, and for pseudo-labels and decoding on a CPU.
export train_cmd cuda_cmd decode_cmd
