"""The flags that commands share."""

import argparse
import math
from pathlib import Path

from .devices import named

# What may differ where a run goes on; of the reference the weights may not.
FREE = ("checkpoint_minutes", "data_dir", "debug", "json", "quiet", "reference", "threads")
COMPRESSION = "each(quantize(k=2)) + prune(keep=0.01)"
NETS = ("linear, lenet300, lenet5, nin, resnet20, resnet32, resnet44, resnet56, resnet110, vgg16 "
        "or alexnet")
WEIGHTS = ".npz or .safetensors under PyTorch's names, of this --net and --activation"


def number(kind, what, holds):
    """A type of argparse: a text as a number for which `holds`; else the error says `what`."""
    def read(text):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not holds(value):
            raise argparse.ArgumentTypeError(f"takes {what}, not {text!r:.60}")
        return value
    return read


COUNT = number(int, "a whole number, at least 0", lambda n: n >= 0)
SOME = number(int, "a whole number, at least 1", lambda n: n >= 1)
THREADS = number(int, "a whole number from 1 to 1024", lambda n: 1 <= n <= 1024)
POSITIVE = number(float, "a positive finite number", lambda x: 0 < x < math.inf)
FINITE = number(float, "a finite number, at least 0", lambda x: 0 <= x < math.inf)
NUMBER = number(float, "a number, at least 0", lambda x: x >= 0)
DECAY = number(float, "a positive number, at most 1", lambda x: 0 < x <= 1)
SHARE = number(float, "a number, at least 0 and under 1", lambda x: 0 <= x < 1)
MOMENTUM = number(float, "a number, at least 0 and under 1", lambda x: 0 <= x < 1)
GROWTH = number(float, "a finite number, at least 1", lambda x: 1 <= x < math.inf)
MU = number(float, "a finite number, at least 1e-300", lambda x: 1e-300 <= x < math.inf)


def add_result_flags(verb):
    """--json and --debug, of commands that print one result."""
    verb.add_argument("--json", action="store_true",
                      help="one JSON object on standard output, the text on standard error")
    verb.add_argument("--debug", action="store_true", help="show the traceback of an error")


def path(text):
    """A path that is not empty: an unset shell variable is a mistake, not the current folder."""
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError("an empty path, or one with a NUL")
    return Path(text)


def device(text):
    """The name of a device; whether it is there is looked at when the command runs."""
    try:
        return named(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def flag(group, name, text, default=None, **options):
    """Add a flag whose help ends with its default, where there is one."""
    text = text.replace("%", "%%") + ("" if default is None else f" (default: {default})")
    group.add_argument(name, help=text, default=default, **options)


def epochs(text):
    """Epochs with commas between them."""
    try:
        epochs = tuple(int(part) for part in text.split(","))
    except ValueError:
        epochs = (-1,)
    if min(epochs) < 0:
        raise argparse.ArgumentTypeError(f"epochs are whole numbers from 0, got {text!r}")
    return epochs


def sizes(text):
    """Whole numbers with commas between them, such as 1e4,1e5, from 1 to 10⁹, ascending."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = [math.nan]
    if not all(1 <= n <= 1e9 and n == int(n) for n in numbers):
        raise argparse.ArgumentTypeError(f"sizes are whole numbers from 1 to 1e9, got {text!r:.60}")
    return tuple(sorted({int(n) for n in numbers}))


def add_net_flags(group, reference=True):
    """Which net, on which data, from which weights."""
    own = "" if reference else " (default: a packed file's own, else {})"
    flag(group, "--net", NETS + own.format("lenet300"), "lenet300" if reference else None,
         metavar="NET")
    flag(group, "--activation", "of lenet300 and lenet5: relu or tanh" + (
        own.format("relu") or " (default: relu)"), metavar="NAME")
    flag(group, "--data", "digits (bundled), mnist, fashion-mnist, cifar10 or imagenet"
         + own.format("digits"), "digits" if reference else None, metavar="NAME")
    flag(group, "--data-dir", "folder with the data sets that are not bundled, in torchvision's "
         "layout or as their authors published them; for imagenet with train/CLASS/ and "
         "val/CLASS/ (default: the environment variable LCREF_DATA)", type=path, metavar="DIR")
    if reference:
        flag(group, "--hold-out", "share of the training set that is not trained on, and whose "
             "error is reported too: choose between nets by it, not by the test error", 0.0,
             type=SHARE, metavar="SHARE")
        flag(group, "--reference", f"start from these weights: {WEIGHTS}", type=path,
             metavar="FILE")


def add_threads(group, text="cores to use; a run repeats bit for bit with any number"):
    """--threads."""
    flag(group, "--threads", text, 1, type=THREADS, metavar="N")


def add_device(group, what="where all of it is computed"):
    """--device."""
    flag(group, "--device", f"{what}: cpu; cuda, or cuda:N for the GPU of that number (pip install "
         "'lcref[cuda]'); strict, array_api_strict's second device: slow, proves that nothing runs "
         "on the host unasked; needs array-api-strict", "cpu", type=device, metavar="WHERE")


def add_compression_flags(group):
    """What is compressed, and how it is stored."""
    flag(group, "--compress", "compression of all weight matrices together (default: "
         f"{COMPRESSION!r})", metavar="TEXT")
    flag(group, "--task", "compression of the tensors named, such as "
         "'fc1.weight, fc2.weight: prune(kappa=5000)'; repeat it for more tasks", metavar="TEXT",
         action="append")
    flag(group, "--storage", "how corrections and factors are held: float16 rounds them inside "
         "the C step, so that what is evaluated is what is stored (default: float32, unless the "
         "text says storage='float16'); both ratios are always reported",
         choices=("float16", "float32"))


def add_loop_flags(group):
    """The LC algorithm: its steps, penalties and the epochs of each L step."""
    flag(group, "--steps", "LC steps", 30, type=SOME, metavar="N")
    flag(group, "--mu0", "first penalty μ0", 1e-3, type=MU, metavar="MU")
    flag(group, "--growth", "μ = μ0·A^k in step k", 1.2, type=GROWTH, metavar="A")
    flag(group, "--penalty", "with multipliers, or without", "augmented",
         choices=("augmented", "quadratic"))
    flag(group, "--epochs", "epochs an L step", 10, type=COUNT, metavar="N")
    flag(group, "--first-epochs", "epochs of the first L step (default: as many as the others)",
         type=COUNT, metavar="N")
    flag(group, "--train-sample", "after each LC step, training loss and errors are measured on "
         "so many training inputs, drawn once; of the reference, of direct compression and at the "
         "end always on all (default: all)", type=SOME, metavar="N")
    flag(group, "--lr-decay", "the rate is RATE·D^k in step k", 0.98, type=DECAY, metavar="D")


def add_sgd_flags(group):
    """SGD's settings."""
    flag(group, "--lr", "learning rate", 0.05, type=POSITIVE, metavar="RATE")
    flag(group, "--epoch-decay", "the rate falls by this factor with each epoch, in each L step "
         "anew", 1.0, type=DECAY, metavar="D")
    flag(group, "--momentum", "Nesterov's momentum", 0.9, type=MOMENTUM, metavar="M")
    flag(group, "--weight-decay", "ω of ω/2 ‖w‖², for all parameters", 0.0, type=FINITE,
         metavar="W")
    flag(group, "--batch", "inputs in a batch", 64, type=SOME, metavar="N")
    group.add_argument("--augment", action=argparse.BooleanOptionalAction, default=True,
                       help="flip and move the images of training, where the data set does "
                       "(cifar10, imagenet)")
    flag(group, "--seed", "of the initial weights and of the batches", 0, type=COUNT, metavar="N")
    add_threads(group)
    add_device(group)


def add_job_flags(verb):
    """All that makes the result of lcref compress."""
    net = verb.add_argument_group("the net and its data")
    add_net_flags(net)
    flag(net, "--reference-epochs", "epochs of training of the reference", 60, type=COUNT,
         metavar="N")
    add_compression_flags(verb.add_argument_group("the compression"))
    add_loop_flags(verb.add_argument_group("the LC algorithm"))
    add_sgd_flags(verb.add_argument_group("its L steps"))


def add_checkpoint_flags(group, after):
    """--resume and how often checkpoints are written."""
    flag(group, "--resume", "go on with the run in DIR that was stopped, to the same bits; all "
         "settings are taken from there, and one that is given as well must be the same, but for "
         f"{', '.join('--' + name.replace('_', '-') for name in FREE)}; the weights in the file of "
         "--reference must be the same", type=path, metavar="DIR")
    flag(group, "--checkpoint-minutes", f"with --out, how often a checkpoint is written besides "
         f"the one after every {after}; the last two are kept until the run has ended", 10.0,
         type=NUMBER, metavar="N")


def add_choice_flags(verb, required):
    """The folder of a sweep, and the limit by which one of its cells is chosen."""
    verb.add_argument("dir", metavar="DIR", type=path, help="the --out of lcref sweep")
    limit = verb.add_mutually_exclusive_group(required=required)
    flag(limit, "--max-error", "the largest ratio with a held-out error of at most E percent",
         type=FINITE, metavar="E")
    flag(limit, "--min-ratio", "the lowest held-out error with a ratio of at least R", type=FINITE,
         metavar="R")
    flag(verb, "--storage", "how all ratios are counted (default: each as its cell holds its "
         "values)", choices=("float16", "float32"))


def add_output_flags(group, written):
    """Where the result goes, and what is printed."""
    if written:
        group.add_argument("--out", help=written, type=path, metavar="DIR")
    for name, text in (("--json", "one JSON object on standard output, the text on standard "
                        "error"), ("--quiet", "no progress bar and no text"),
                       ("--debug", "show the traceback of an error")):
        group.add_argument(name, action="store_true", help=text)
