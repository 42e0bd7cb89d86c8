"""What the scores of a few seeds can and cannot say: centers, intervals, tests, budgets.

Every module takes arrays or a :class:`analysis.part.Part` and is the same at every call: what is
random comes from numpy's Generator with a fixed seed. A missing number is NaN.
"""
