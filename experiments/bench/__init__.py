"""``make bench``: this LoKr beside PEFT, LyCORIS and the frozen base, on one machine, in one run.

layer   one layer's forward and backward pass
step    one trial's training step
sweep   a study, from start to last result
page    results/bench/README.md, from the files that the others wrote
"""

TEXT = "bench-sweep"
DIFFUSION = "bench-emoji"
"""The studies whose sweeps are timed."""
