"""What labels mean, for all sources: they hand over what is written, and where; labels and the class list come back.

`classes` makes class indices of names or numbers. On it stand the forms in which labels are written: `texts` with one
label for each image, `tags` with any number of them, `probabilities`, and rows of numbers (`numbers`, `multi_hot`).
"""
