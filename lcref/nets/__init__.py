"""Neural nets as plain functions of NumPy arrays, differentiated by autograd."""
from ..blocks import threads
from .checkpoints import read_npz, read_params, read_tensors, write_npz
from .convolution import conv2d
from .layers import (add, affine, channels_last, dropout, flatten, relu, softmax_cross_entropy,
                     subsample, tanh)
from .models import alexnet, build, lenet5, lenet300, linear, nin, resnet, vgg16
from .net import Net, Training, evaluate, loss, value_and_grad
from .normalisation import batch_norm, batch_norm_train, batch_statistics, local_response_norm
from .pooling import average_pool, global_average_pool, max_pool

__all__ = ["Net", "Training", "add", "affine", "alexnet", "average_pool", "batch_norm",
           "batch_norm_train", "batch_statistics", "build", "channels_last", "conv2d", "dropout",
           "evaluate", "flatten", "global_average_pool", "lenet300", "lenet5", "linear",
           "local_response_norm", "loss", "max_pool", "nin", "read_npz", "read_params",
           "read_tensors", "relu", "resnet", "softmax_cross_entropy", "subsample", "tanh",
           "threads", "value_and_grad", "vgg16", "write_npz"]
