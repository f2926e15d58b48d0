"""Reads a local pipeline folder before it is uploaded: which files are the model, what it takes, why it is not drawn.

It follows `ddpm_inference.checkpoint`, which the operator never imports, as far as files of configurations and the
headers of weights tell; tests compare the two. A pipeline that passes here may still be refused by the driver.
"""
