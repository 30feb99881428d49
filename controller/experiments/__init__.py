"""Many runs on the emulated cell: the paper's Table V, the oracle, sweeps of parameters."""
