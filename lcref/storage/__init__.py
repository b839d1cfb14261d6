"""The packed file: a compressed net in the bits that it is counted at.

It is an .npz of two members that are stored, not deflated, and that `numpy.load` reads without
pickle: `header`, the bytes of a JSON text, and `payload`, the bytes of one stream after another,
each filled with zero bits up to a whole byte. The header has

    format    1, the version of what is written here
    about     the net and the data set it is for, and what else the writer adds
    storage   "float16" or "float32": the width of corrections and factors
    tensors   the shape of every tensor, in order; {"bn1,bn2": {"weight,bias": 16, "scale": [3, 5]}}
              is bn1.weight, bn1.bias, bn1.scale, bn2.weight, ..; an integer is the only side
    tasks     of each task the numbers of its tensors, from 0 in that order ("tensors"), its text
              ("compress") and the record of its θ ("theta")

and the payload the streams of all θ, task by task, then every other tensor in float32. Floating
numbers are little-endian IEEE 754. By record, n being the number of weights of its tensors:

    {"codebook": "free", "k": k}            k entries in float32, then the code of each weight,
                                            ⌈log2 k⌉ bits, the highest first. Only the entries in
                                            use are there, and the codes count those
    {"codebook": "scaled", "levels": [C]}   one float32, the entry whose level C_j is the largest in
                                            magnitude (the first of two); entry i is that / C_j ·
                                            C_i in double precision, then rounded, or the number
                                            itself where C_j = 0; no number for no weights. Then
                                            the codes
    {"codebook": "fixed", "levels": [C]}    the codes
    {"sparse": m, "bits": b, "codes": c}    m values at the width of the file, then c codes of b
                                            bits. The code 2ᵇ − 1 is reserved and means 2ᵇ − 1
                                            zeros and no value; every other is the number of zeros
                                            before the next value. Of several b that are as good
                                            the smallest. With "axis": a, slices along that axis
                                            take the place of weights, and the values are an array
                                            of the tensor's shape with m slices along it
    {"low rank": r, "scheme": s}            left, then right, at the width of the file: left has a
                                            row for each output, by scheme 2 of a convolution for
                                            each (output, kernel row), and right a column for each
                                            (input, kernel row, kernel column), by scheme 2 for each
                                            (input, kernel column)
    {"dense": dtype}                        the values as "float32", "float16" or "bfloat16", the
                                            upper half of a float32
    {"each": [records]}                     one for each tensor; one for all where they are alike
    {"sum": [records]}                      one for each part

A record also has "status" and "gap", null for infinity, where they are not "exact" and 0; the parts
of a sum have none, only the sum. The tensors of a task lie end to end, in C order, where a part is
over several.

The text decides the structure: "sum" for A + B, with a record for each term; for several tensors
"each" for each(A), for low rank and for slices; and "storage" is "float16" where the texts have
that for all corrections and factors, and there are some. Names have no commas and at most 256
characters. Δ(θ) is computed in float32: the parts of a sum are added from left to right, and those
without values or of rank 0 are left out, or all but the first where all are such. The order of
summation in left · right is not fixed, so that another reader may differ there by rounding.
"""
from .model import Model, convention, with_storage
from .reading import is_packed, load, unpack
from .writing import pack

__all__ = ["Model", "convention", "is_packed", "load", "pack", "unpack", "with_storage"]
