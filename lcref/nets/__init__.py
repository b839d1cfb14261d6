"""Neural nets as plain functions of NumPy arrays, differentiated by autograd."""
from ..blocks import threads
from .layers import affine, relu, softmax_cross_entropy, tanh
from .models import build, lenet300, linear
from .net import Net, evaluate, loss, value_and_grad

__all__ = ["Net", "affine", "build", "evaluate", "lenet300", "linear", "loss", "relu",
           "softmax_cross_entropy", "tanh", "threads", "value_and_grad"]
