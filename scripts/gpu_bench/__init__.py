"""What `scripts/gpu_check` runs: the kernels checked and measured on a GPU, one process for each stage."""
