"""Tables of a part: one file a table, each a function of the part.

A table holds raw numbers, how people read them, what is best in it, and the protocol behind it;
:mod:`analysis.tables.write` makes CSV, Markdown and LaTeX of it.
"""
