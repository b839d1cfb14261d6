"""Neural nets as plain functions of NumPy arrays, differentiated by autograd."""
from .layers import affine, relu, softmax_cross_entropy, tanh
from .models import Net, build, evaluate, lenet300, linear, loss, value_and_grad

__all__ = ["Net", "affine", "build", "evaluate", "lenet300", "linear", "loss", "relu",
           "softmax_cross_entropy", "tanh", "value_and_grad"]
