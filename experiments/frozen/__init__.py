"""What frozen bases compute faster than transformers and diffusers do.

The numbers are those of autocast, but for gradients of products, which add up in their own dtype.

    mpnet        MPNet's attention through torch's fused product
    post_norm    encoders that normalize after each sum (BERT, RoBERTa, MPNet): sum, norm and the
                 cast for the products that follow in one program
    unet         U-Nets: norms, SiLU and the cast likewise, pictures channels last all the way

add_norm and group_norm are the operations, norm_programs and group_programs theirs in Triton.
"""
