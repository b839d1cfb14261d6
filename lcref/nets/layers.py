"""The layers the nets are made of: each is one autograd primitive, with its vjp beside it.

A vjp maps the gradient g of the loss with respect to a layer's output to the gradients with
respect to its inputs; `defvjp` takes one for every input. The array namespace is that of the
input, so the same text runs on NumPy arrays and on any array of the array API standard. Every
layer keeps the dtype it is given, in its output and in its gradients.
"""
from array_api_compat import array_namespace, device
from autograd.extend import defvjp, primitive

__all__ = ["affine", "relu", "tanh", "softmax_cross_entropy"]


@primitive
def affine(x, w, b):
    """Return the fully connected layer y = x Wᵀ + b.

    Parameters
    ----------
    x : array of shape (n, inputs), real floating
    w : array of shape (outputs, inputs), PyTorch's layout
    b : array of shape (outputs,)

    Returns
    -------
    array of shape (n, outputs), of the same dtype

    Notes
    -----
    One matrix product forward, two backward (one where x is data): O(n · inputs · outputs) each.
    """
    y = x @ w.T
    y += b
    return y


defvjp(
    affine,
    lambda y, x, w, b: lambda g: g @ w,                                # ∂x = g W
    lambda y, x, w, b: lambda g: g.T @ x,                              # ∂W = gᵀ x
    lambda y, x, w, b: lambda g: array_namespace(g).sum(g, axis=0),    # ∂b = Σ_n g_n
)


@primitive
def relu(x):
    """Return max(x, 0) elementwise; the derivative at 0 is taken as 0, and a NaN stays a NaN.

    Parameters
    ----------
    x : array of any shape, real floating

    Returns
    -------
    array of x's shape and dtype
    """
    return array_namespace(x).maximum(x, 0.0)


def _relu_vjp(y, x):
    xp = array_namespace(y)
    return lambda g: g * xp.astype(y > 0, y.dtype)                     # ∂x = g · 1[y > 0]


defvjp(relu, _relu_vjp)


@primitive
def tanh(x):
    """Return tanh x elementwise.

    Parameters
    ----------
    x : array of any shape, real floating

    Returns
    -------
    array of x's shape and dtype
    """
    return array_namespace(x).tanh(x)


def _tanh_vjp(y, x):
    def vjp(g):                                                        # ∂x = g · (1 − y²)
        slope = 1.0 - y * y
        slope *= g      # in place: one temporary less
        return slope
    return vjp


defvjp(tanh, _tanh_vjp)


@primitive
def softmax_cross_entropy(logits, labels):
    """Return the mean over the batch of −log softmax(z)_y, z a row of logits, y its label.

    The largest logit is subtracted first, so that no exponential overflows and one of them is 1:
    −log softmax(z)_y = log Σ_j exp(z_j − max z) − (z_y − max z).

    Parameters
    ----------
    logits : array of shape (n, classes), real floating, n at least 1
    labels : array of shape (n,), integer, 0 to classes − 1

    Returns
    -------
    scalar array, of the dtype of the logits

    Raises
    ------
    IndexError
        A label is at least `classes`. (That none is negative is for the caller to see to.)

    Notes
    -----
    O(n · classes).
    """
    xp = array_namespace(logits)
    z = logits - xp.max(logits, axis=1, keepdims=True)
    log_sum = xp.log(xp.sum(xp.exp(z), axis=1))
    return xp.mean(log_sum - z[xp.arange(z.shape[0], device=device(z)), labels])


def _cross_entropy_vjp(loss, logits, labels):
    def vjp(g):                                             # ∂z = g · (softmax(z) − 1[j = y]) / n
        xp = array_namespace(logits)
        p = xp.exp(logits - xp.max(logits, axis=1, keepdims=True))
        p /= xp.sum(p, axis=1, keepdims=True)
        classes = xp.arange(p.shape[1], device=device(p))
        p -= xp.astype(labels[:, None] == classes, p.dtype)
        p *= g / p.shape[0]
        return p
    return vjp


defvjp(softmax_cross_entropy, _cross_entropy_vjp, None)
