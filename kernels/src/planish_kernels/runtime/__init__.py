"""What every operator needs around its kernels: probes of the machine, dispatch, self-tests, run-time compilation."""
