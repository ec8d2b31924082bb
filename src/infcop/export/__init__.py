"""Export: the found network as a file that others can use.

==========================================  ======================================================
``tensors``, ``dtypes``                     what is written: plain tensors, tied ones once
``sparse_format``                           the table of a sparse file, and what makes it valid
``sparse_write``, ``sparse_read``           writing and reading a sparse file
``sizes``                                   what the formats take
``manifest``                                where a network comes from
``weights``                                 ``safetensors`` and ``state-dict``
``batches``, ``programs``                   a captured program with a free batch size
``onnx``, ``compared``                      ONNX, and its outputs against those of PyTorch
``semi_structured``                         2:4 weights for the hardware that has them
==========================================  ======================================================
"""
