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
                                            ⌈log2 k⌉ bits, the highest first
    {"codebook": "scaled", "levels": [C]}   one float32, the entry whose level C_j is the largest in
                                            magnitude (the first of two); entry i is that / C_j ·
                                            C_i in double precision, then rounded; then the codes
    {"codebook": "fixed", "levels": [C]}    the codes
    {"sparse": m, "bits": b, "codes": c}    m values at the width of the file, then c codes of b
                                            bits: a code under 2ᵇ − 1 is the number of zeros before
                                            the next value, 2ᵇ − 1 means that many zeros and no
                                            value. With "axis" slices take the place of weights
    {"low rank": r, "scheme": s}            left, then right, at the width of the file
    {"dense": dtype}                        the values as "float32", "float16" or "bfloat16"
    {"each": [records]}                     one for each tensor; one for all where they are alike
    {"sum": [records]}                      one for each part

A record also has "status" and "gap", null for infinity, where they are not "exact" and 0; the parts
of a sum have none, only the sum. The tensors of a task lie end to end, in C order, where a part is
over several.
"""
from .model import Model, convention, with_storage
from .reading import is_packed, load, unpack
from .writing import pack

__all__ = ["Model", "convention", "is_packed", "load", "pack", "unpack", "with_storage"]
