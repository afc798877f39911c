# shellcheck shell=bash
# Sourced: what runs the jobs, in Kaldi's form: CMD [--gpu N] JOB=1:N LOG COMMAND...
# The default runs them on this machine. A cluster's queue.pl or slurm.pl can stand here instead.
_run_jobs="${python:-python3} -m espnet_layerskip.recipe.run_jobs"
export train_cmd="${_run_jobs}"   # data preparation and statistics
export cuda_cmd="${_run_jobs}"    # training
export decode_cmd="${_run_jobs}"  # decoding
