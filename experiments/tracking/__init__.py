"""Results to Weights & Biases: every trial a run of its study's group, every lane a run of its own.

``record`` says what is logged, ``session`` logs it, ``tracker`` listens to a run of trials, and
``command`` is ``python -m experiments log``. Only ``session`` imports wandb, and only when asked.
"""
