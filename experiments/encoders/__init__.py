"""What the frozen encoders of text tasks compute faster than transformers does, with its numbers.

mpnet        MPNet's attention through torch's fused product
post_norm    layers that normalize after each sum (BERT, RoBERTa, MPNet): the sum, the norm and
             the cast for the products that follow in one program (add_norm, programs)
"""
