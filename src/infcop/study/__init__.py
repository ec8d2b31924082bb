"""Many runs: methods x seeds x settings, side by side, paired by seed."""
