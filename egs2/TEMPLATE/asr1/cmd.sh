# shellcheck shell=bash
# Sourced: what runs the jobs, in Kaldi's form: CMD [--gpu N] [--mem M] JOB=1:N LOG COMMAND...
#   local: on this machine
#   slurm: by srun, with the options of conf/slurm.conf (that of egs2/TEMPLATE where there is none)
# Another runner of that form, such as queue.pl, can stand in the three lines at the end.
cmd_backend=${cmd_backend:-local}

_run_jobs="${python:-python3} -m espnet_layerskip.recipe.run_jobs"
case ${cmd_backend} in
    local) ;;
    slurm)
        _conf=conf/slurm.conf
        [ -f "${_conf}" ] || _conf=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/conf/slurm.conf
        _run_jobs+=" --config ${_conf}"
        ;;
    *) echo "cmd.sh: cmd_backend '${cmd_backend}': choose local or slurm" >&2; exit 2 ;;
esac
export train_cmd="${_run_jobs}"   # data preparation and statistics
export cuda_cmd="${_run_jobs}"    # training
export decode_cmd="${_run_jobs}"  # decoding
