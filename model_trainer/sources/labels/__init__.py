"""Interprets labels, for all sources: converts what the data contains to class indices and the class list.

`classes` converts names or numbers to class indices. The other modules are the forms in which labels are written:
`texts` with one label per image, `tags` with any number of them, `probabilities`, and rows of numbers (`numbers`,
`multi_hot`).
"""
