"""The command line. One verb a task; results on standard output, everything else on standard error.

Exit status: 0 done, 1 the answer is no, 2 wrong usage or input, 130 interrupted.
"""

import argparse
import importlib
import sys
from pathlib import Path

from . import __version__
from .text import kinds

COMPRESSION = "each(quantize(k=2)) + prune(keep=0.01)"
CALLS = (
    "nearest(w, codebook), binary(w, scale), ternary(w, scale), powers_of_two(w, c), "
    "scaled_codebook(w, codebook), kmeans(w, k), l0_ball(w, kappa), l1_ball(w, radius), "
    "l0_penalty(w, alpha, mu), l1_penalty(w, alpha, mu), group_l0_ball(w, kappa, axis), "
    "rank_ball(w, rank), rank_selection(w, alpha, mu, 'storage'), round_to(w, dtype), "
    "codebook_l0(w, codebook, kappa), scaled_binary_l0(w, kappa), kmeans_l0(w, k, kappa), "
    "sum(w) with --compress, lc(X, y, w, projection, budget, mu0, a, steps, penalty)")
NETS = ("linear, lenet300, lenet5, nin, resnet20, resnet32, resnet44, resnet56, resnet110, vgg16 "
        "or alexnet")
WEIGHTS = ".npz or .safetensors under PyTorch's names, of this --net and --activation"
INPUT_ERRORS = (ValueError, TypeError, OSError, FloatingPointError, OverflowError)


def main(argv=None):
    """Run a command; return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without Greek letters
    args = _parser().parse_args(argv)
    try:
        return args.run(args)
    except KeyboardInterrupt:
        print(f"lcref {args.verb}: interrupted", file=sys.stderr)
        return 130
    except INPUT_ERRORS as error:
        if args.debug:
            raise
        print(f"lcref {args.verb}: error: {error}", file=sys.stderr)
        return 2


def _parser():
    parser = argparse.ArgumentParser(
        prog="lcref", allow_abbrev=False, description="The reference implementation of the "
        "learning-compression (LC) algorithm for additive combinations of compressions.")
    parser.add_argument("--version", action="version", version=f"lcref {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for add in (_add_compress, _add_train, _add_eval, _add_info, _add_export, _add_verify,
                _add_certify, _add_vectors, _add_bench):
        add(verbs)
    return parser


def _add_compress(verbs):
    verb = verbs.add_parser(
        "compress", help="compress a net: reference, direct compression, LC", allow_abbrev=False,
        description="Train a reference net (or read one), compress it directly, then run the LC "
        "algorithm, and compare the three. Without flags: LeNet300 on the bundled digits, one bit "
        "a weight in each layer plus 1% corrections over the net.",
        epilog=f"Compressions: {kinds()}; A + B is sum(A, B).".replace("%", "%%"))
    verb.set_defaults(run=_command("experiment", "run"))
    net = verb.add_argument_group("the net and its data")
    _add_net_flags(net)
    _flag(net, "--reference-epochs", "epochs of training of the reference", 60, type=int,
          metavar="N")
    _add_compression_flags(verb.add_argument_group("the compression"))
    _add_loop_flags(verb.add_argument_group("the LC algorithm"))
    _add_sgd_flags(verb.add_argument_group("its L steps"))
    _add_output_flags(verb.add_argument_group("output"), "write model.npz (packed), history.json, "
                      "reference.npz, compressed.npz (dense), pictures there")


def _add_train(verbs):
    verb = verbs.add_parser(
        "train", help="train a reference net", allow_abbrev=False,
        description="Train a net by Nesterov's SGD, or a small one by L-BFGS, and write its "
        "weights, after every epoch of SGD and at the end.",
        epilog="For example: lcref train --net lenet5 --data mnist --epochs 10 --out lenet5")
    verb.set_defaults(run=_command("training", "run_train"))
    _add_net_flags(verb.add_argument_group("the net and its data"))
    group = verb.add_argument_group("training")
    _flag(group, "--optimizer", "lbfgs takes the whole training set at a time, for nets without "
          "dropout and normalisation; it ignores --lr, --batch and what else steers SGD",
          "sgd", choices=("sgd", "lbfgs"))
    _flag(group, "--epochs", "epochs of SGD, or iterations of L-BFGS", 60, type=int, metavar="N")
    _flag(group, "--milestones", "epochs, counted from 0, from each of which on the rate is a "
          "tenth of what it was, such as 100,150 (default: none)", type=_epochs, metavar="E,E")
    _add_sgd_flags(group)
    _add_output_flags(verb.add_argument_group("output"), "write weights.npz and history.json "
                      "there", required=True)


def _add_eval(verbs):
    verb = verbs.add_parser(
        "eval", help="the error of a net", allow_abbrev=False,
        description="Print the test error of the weights in a file, which are checked against "
        "the net. A packed file, such as model.npz of lcref compress, says itself which net and "
        "data it is for.", epilog="For example: lcref eval resnet20.npz --net resnet20 --data "
        "cifar10 --threads 2. Weights of another --activation fit as well, and give a large error.")
    verb.set_defaults(run=_command("training", "run_eval"))
    verb.add_argument("file", metavar="FILE", type=_path, help=f"a packed file, or {WEIGHTS}")
    _add_net_flags(verb, reference=False)
    verb.add_argument("--train", action="store_true", help="the training error too")
    verb.add_argument("--from-parts", action="store_true", help="of a packed file: multiply part "
                      "by part and add, without the dense weights; the same up to rounding")
    _add_threads(verb)
    _add_output_flags(verb, None)


def _add_info(verbs):
    verb = verbs.add_parser(
        "info", help="what a packed file holds", allow_abbrev=False,
        description="Print the parts of a packed file, such as model.npz of lcref compress, the "
        "bits of every layer, and the ratio by both storage conventions and by the file's size.")
    verb.set_defaults(run=_command("info", "run_info"))
    verb.add_argument("file", metavar="FILE", type=_path, help="a packed file")
    verb.add_argument("--flops", action="store_true", help="also the multiplications and additions "
                      "of every layer for one input, from the parts and dense")
    _add_output_flags(verb, None)


def _add_export(verbs):
    verb = verbs.add_parser(
        "export", help="dense weights of a packed file, for other programs", allow_abbrev=False,
        description="Write the tensors of a packed file, decompressed, under PyTorch's names.")
    verb.set_defaults(run=_command("info", "run_export"))
    verb.add_argument("file", metavar="FILE", type=_path, help="a packed file")
    verb.add_argument("--to", required=True, choices=("npz", "safetensors"))
    _flag(verb, "--out", "the file to write (default: FILE-dense, beside it)", type=_path)
    _add_output_flags(verb, None)


def _add_bench(verbs):
    verb = verbs.add_parser(
        "bench", help="the speed of L steps, against PyTorch", allow_abbrev=False,
        description="Time the L steps of LeNet300, LeNet5 and ResNet20 by lcref and by PyTorch, "
        "where it is installed, in turns, and their peak memory. Takes a minute or two; other "
        "programs that run meanwhile spoil it.")
    verb.set_defaults(run=_command("bench", "run"))
    _flag(verb, "--net", "only this one: lenet300, lenet5 or resnet20", metavar="NET")
    _flag(verb, "--turns", "turns that are counted, of each", 7, type=int, metavar="N")
    _add_threads(verb, "threads of each of the two")
    _add_output_flags(verb, None)


def _add_verify(verbs):
    verb = verbs.add_parser(
        "verify", help="judge an implementation of a projection, a sum's C step or the loop",
        allow_abbrev=False, description="Try a function, or a program in any language, on inputs "
        "that shrink to the smallest that shows a mistake. Exit status 0: it conforms, 1: it does "
        "not, 2: wrong usage.",
        epilog=f"Kinds and how they are called: {CALLS}. All by position; NumPy arrays in and out.")
    verb.set_defaults(run=_command("verify.commands", "run_verify"))
    verb.add_argument("target", nargs="?", metavar="TARGET",
                      help="module:function; the current directory is importable")
    verb.add_argument("--exec", metavar="CMD", help="a program instead, which answers one JSON "
                      "object a line, see the README")
    verb.add_argument("--as", dest="kind", required=True, metavar="KIND", help="what it claims "
                      "to be")
    _flag(verb, "--compress", "the sum, for kind sum", metavar="TEXT")
    _flag(verb, "--max-examples", "inputs for each property", 100, type=int, metavar="N")
    _flag(verb, "--claims", "optional properties that it claims to have: names with commas, or "
          "all", metavar="NAMES", action="append")
    _flag(verb, "--expect-fail", "a property that is known to fail, as NAME=reason; repeat it for "
          "more; one that passes fails", metavar="NAME=reason", action="append")
    _flag(verb, "--time-limit", "seconds for one call", 10.0, type=float, metavar="S")
    _add_result_flags(verb)


def _add_certify(verbs):
    verb = verbs.add_parser(
        "certify", help="judge one compressed model at full size", allow_abbrev=False,
        description="Judge the weights of MODEL.npz as a compression of those of REF.npz: "
        "feasible or not, and how far from the nearest feasible point at most. Exit status 0: "
        "feasible, and no feasible point that is nearer is known; 1: not; 2: wrong usage. A model "
        "that was trained further is feasible but not nearest: give --max-excess inf. A packed "
        "MODEL.npz is judged part by part, by its own text where none is given.")
    verb.set_defaults(run=_command("verify.commands", "run_certify"))
    verb.add_argument("reference", metavar="REF.npz", type=_path)
    verb.add_argument("model", metavar="MODEL.npz", type=_path)
    _flag(verb, "--compress", "compression of all tensors with two axes or more together",
          metavar="TEXT")
    _flag(verb, "--task", "compression of the tensors named; repeat it for more", metavar="TEXT",
          action="append")
    _flag(verb, "--mu", "the penalty μ, for the penalty forms", type=float, metavar="MU")
    _flag(verb, "--max-excess", "how far above the best known point the objective may be, as a "
          "share of it", 0.0, type=float, metavar="R")
    _add_result_flags(verb)


def _add_vectors(verbs):
    verb = verbs.add_parser(
        "vectors", help="write the test vectors, for other languages", allow_abbrev=False,
        description="Copy the test vectors, one JSON file a kind, and their schema.")
    verb.set_defaults(run=_command("verify.commands", "run_vectors"))
    verb.add_argument("--out", required=True, type=_path, metavar="DIR")
    verb.add_argument("--debug", action="store_true", help="show the traceback of an error")


def _command(module, name):
    """A function of lcref, whose module is imported when it is called."""
    def run(args):
        return getattr(importlib.import_module(f".{module}", __package__), name)(args)
    return run


def _add_result_flags(verb):
    verb.add_argument("--json", action="store_true",
                      help="one JSON object on standard output, the text on standard error")
    verb.add_argument("--debug", action="store_true", help="show the traceback of an error")


def _path(text):
    """A path that is not empty: an unset shell variable is a mistake, not the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("an empty path")
    return Path(text)


def _flag(group, name, text, default=None, **options):
    """Add a flag whose help ends with its default, where there is one."""
    text = text.replace("%", "%%") + ("" if default is None else f" (default: {default})")
    group.add_argument(name, help=text, default=default, **options)


def _epochs(text):
    """Epochs with commas between them."""
    try:
        epochs = tuple(int(part) for part in text.split(","))
    except ValueError:
        epochs = (-1,)
    if min(epochs) < 0:
        raise argparse.ArgumentTypeError(f"epochs are whole numbers from 0, got {text!r}")
    return epochs


def _add_net_flags(group, reference=True):
    own = "" if reference else " (default: a packed file's own, else {})"
    _flag(group, "--net", NETS + own.format("lenet300"), "lenet300" if reference else None,
          metavar="NET")
    _flag(group, "--activation", "of lenet300 and lenet5: relu or tanh" + (
        own.format("relu") or " (default: relu)"), metavar="NAME")
    _flag(group, "--data", "digits (bundled), mnist, fashion-mnist or cifar10" + own.format(
        "digits"), "digits" if reference else None, metavar="NAME")
    _flag(group, "--data-dir", "folder with the data sets that are not bundled, in torchvision's "
          "layout or as their authors published them (default: the environment variable "
          "LCREF_DATA)", type=_path, metavar="DIR")
    if reference:
        _flag(group, "--reference", f"start from these weights: {WEIGHTS}", type=_path,
              metavar="FILE")


def _add_threads(group, text="cores to use; a run repeats bit for bit with any number"):
    _flag(group, "--threads", text, 1, type=int, metavar="N")


def _add_compression_flags(group):
    _flag(group, "--compress", "compression of all weight matrices together (default: "
          f"{COMPRESSION!r})", metavar="TEXT")
    _flag(group, "--task", "compression of the tensors named, such as "
          "'fc1.weight, fc2.weight: prune(kappa=5000)'; repeat it for more tasks", metavar="TEXT",
          action="append")
    _flag(group, "--storage", "how corrections and factors are held: float16 rounds them inside "
          "the C step, so that what is evaluated is what is stored (default: float32, unless the "
          "text says storage='float16'); both ratios are always reported",
          choices=("float16", "float32"))


def _add_loop_flags(group):
    _flag(group, "--steps", "LC steps", 30, type=int, metavar="N")
    _flag(group, "--mu0", "first penalty μ0", 1e-3, type=float, metavar="MU")
    _flag(group, "--growth", "μ = μ0·A^k in step k", 1.2, type=float, metavar="A")
    _flag(group, "--penalty", "with multipliers, or without", "augmented",
          choices=("augmented", "quadratic"))
    _flag(group, "--epochs", "epochs an L step", 10, type=int, metavar="N")
    _flag(group, "--first-epochs", "epochs of the first L step (default: as many as the others)",
          type=int, metavar="N")
    _flag(group, "--lr-decay", "the rate is RATE·D^k in step k", 0.98, type=float, metavar="D")


def _add_sgd_flags(group):
    _flag(group, "--lr", "learning rate", 0.05, type=float, metavar="RATE")
    _flag(group, "--epoch-decay", "the rate falls by this factor with each epoch, in each L step "
          "anew", 1.0, type=float, metavar="D")
    _flag(group, "--momentum", "Nesterov's momentum", 0.9, type=float, metavar="M")
    _flag(group, "--weight-decay", "ω of ω/2 ‖w‖², for all parameters", 0.0, type=float,
          metavar="W")
    _flag(group, "--batch", "inputs in a batch", 64, type=int, metavar="N")
    group.add_argument("--augment", action=argparse.BooleanOptionalAction, default=True,
                       help="flip and move the images of training, where the data set does "
                       "(cifar10)")
    _flag(group, "--seed", "of the initial weights and of the batches", 0, type=int, metavar="N")
    _add_threads(group)


def _add_output_flags(group, written, required=False):
    if written:
        group.add_argument("--out", help=written, type=_path, metavar="DIR", required=required)
    for name, text in (("--json", "one JSON object on standard output, the text on standard "
                        "error"), ("--quiet", "no progress bar and no text"),
                       ("--debug", "show the traceback of an error")):
        group.add_argument(name, action="store_true", help=text)
