"""What frozen bases compute faster than transformers and diffusers do, with their numbers.

mpnet        MPNet's attention through torch's fused product
post_norm    encoders that normalize after each sum (BERT, RoBERTa, MPNet): the sum, the norm and
             the cast for the products that follow in one program (add_norm, norm_programs)
resnet       U-Nets: group norm, SiLU and the cast together, pictures with their channels last
             all the way (group_norm, group_programs)
"""
