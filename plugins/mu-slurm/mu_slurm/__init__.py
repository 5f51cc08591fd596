"""The engine `slurm`: the workers of mu are tasks of Slurm's job arrays."""

from mu_slurm.engine import SlurmEngine

engine = SlurmEngine()
