"""The commands of the command line: the flags of each, and the function that it runs."""

import importlib

from .flags import (COUNT, NUMBER, POSITIVE, SOME, THREADS, WEIGHTS, add_checkpoint_flags,
                    add_choice_flags, add_device, add_job_flags, add_net_flags, add_output_flags,
                    add_result_flags, add_sgd_flags, add_threads, epochs, flag, path, sizes)
from .text import kinds

__all__ = ["VERBS"]

CALLS = (
    "nearest(w, codebook), binary(w, scale), ternary(w, scale), powers_of_two(w, c), "
    "scaled_codebook(w, codebook), kmeans(w, k), l0_ball(w, kappa), l1_ball(w, radius), "
    "l0_penalty(w, alpha, mu), l1_penalty(w, alpha, mu), group_l0_ball(w, kappa, axis), "
    "rank_ball(w, rank), rank_selection(w, alpha, mu, 'storage'), round_to(w, dtype), "
    "codebook_l0(w, codebook, kappa), scaled_binary_l0(w, kappa), kmeans_l0(w, k, kappa), "
    "sum(w) with --compress, lc(X, y, w, projection, budget, mu0, a, steps, penalty)")


def _command(module, name):
    """A function of lcref, whose module is imported when it is called."""
    def run(args):
        return getattr(importlib.import_module(f".{module}", __package__), name)(args)
    return run


def _compress(verbs):
    verb = verbs.add_parser(
        "compress", help="compress a net: reference, direct compression, LC", allow_abbrev=False,
        description="Train a reference net (or read one), compress it directly, then run the LC "
        "algorithm, and compare the three. Without flags: LeNet300 on the bundled digits, one bit "
        "a weight in each layer plus 1% corrections over the net.",
        epilog=f"Compressions: {kinds()}; A + B is sum(A, B).".replace("%", "%%"))
    verb.set_defaults(run=_command("experiment", "run"))
    add_job_flags(verb)
    output = verb.add_argument_group("output")
    add_output_flags(output, "write model.npz (packed), history.json, reference.npz, "
                     "compressed.npz (dense), pictures there, and checkpoints meanwhile")
    add_checkpoint_flags(output, "LC step")


def _sweep(verbs):
    verb = verbs.add_parser(
        "sweep", help="compress a net in many ways, on all cores or a cluster", allow_abbrev=False,
        description="Run every cell of a design, each what lcref compress does with some flags, "
        "and write the result of each to a file of its own in DIR. Cells that have a result are "
        "not run again, so the same command goes on with a sweep that was stopped. Exit status 0: "
        "all cells have results, 1: some failed, and their files say why.",
        epilog="With MPI: mpiexec -n 3 lcref sweep FILE --out DIR --executor mpi, one of whose "
        "processes hands out the cells. DIR must be on a file system that all workers see.")
    verb.set_defaults(run=_command("sweep_command", "run"))
    verb.add_argument("file", metavar="FILE", type=path, help="the design, in TOML or JSON: "
                      "settings of all cells, [[grid]] and [[random]], see the README")
    verb.add_argument("--out", required=True, type=path, metavar="DIR",
                      help="where the results go, or are")
    flag(verb, "--executor", "where cells run: processes of this machine, dask://HOST:PORT of a "
         "scheduler, or mpi", "processes", metavar="WHERE")
    flag(verb, "--workers", "processes on this machine (default: the cores)", type=THREADS,
         metavar="N")
    add_threads(verb, "cores to use in each cell; a result is the same with any number")
    add_device(verb, "where cells are computed, with a GPU as many at a time as --workers says; a "
               "folder has cells of one kind of device")
    flag(verb, "--data-dir", "as of lcref compress", type=path, metavar="DIR")
    verb.add_argument("--list", action="store_true", help="run nothing; print how many cells there "
                      "are, have results and failed, and the first few")
    verb.add_argument("--retry-failed", action="store_true", help="run failed cells once more")
    add_output_flags(verb, None)


def _best(verbs):
    verb = verbs.add_parser(
        "best", help="choose one cell of a sweep", allow_abbrev=False,
        description="Choose the cell of the largest ratio within an error, or of the lowest error "
        "within a ratio, by the error on the training data that hold-out = 0.1 in the file of the "
        "sweep kept out of training; its test error is reported beside it. Prints the command "
        "that makes the model again. Exit status 1: no cell is within the limit; the nearest one "
        "is named.", epilog="For example: lcref best sweep --max-error 2.5")
    verb.set_defaults(run=_command("choice", "run_best"))
    add_choice_flags(verb, required=True)
    add_result_flags(verb)


def _plot(verbs):
    verb = verbs.add_parser(
        "plot", help="pictures of a sweep, and a page to look at it", allow_abbrev=False,
        description="Draw the test error and the training loss of every cell of a sweep against "
        "its ratio, with the Pareto front, as error-ratio.png and loss-ratio.png, and write "
        "report.html, one page with both, in which a point shows its settings, and a table to "
        "sort; it needs no network. With a limit, the page also shows the cell that lcref best "
        "chooses.", epilog="For example: lcref plot sweep --max-error 2.5")
    verb.set_defaults(run=_command("sweep_plots", "run_plot"))
    add_choice_flags(verb, required=False)
    add_output_flags(verb, "write the three files there (default: DIR)")


def _train(verbs):
    verb = verbs.add_parser(
        "train", help="train a reference net", allow_abbrev=False,
        description="Train a net by Nesterov's SGD, or a small one by L-BFGS, and write its "
        "weights, after every epoch of SGD and at the end.",
        epilog="For example: lcref train --net lenet5 --data mnist --epochs 10 --out lenet5")
    verb.set_defaults(run=_command("training", "run_train"))
    add_net_flags(verb.add_argument_group("the net and its data"))
    group = verb.add_argument_group("training")
    flag(group, "--optimizer", "lbfgs takes the whole training set at a time, for nets without "
         "dropout and normalisation; it ignores --lr, --batch and what else steers SGD",
         "sgd", choices=("sgd", "lbfgs"))
    flag(group, "--epochs", "epochs of SGD, or iterations of L-BFGS", 60, type=COUNT,
         metavar="N")
    flag(group, "--milestones", "epochs, counted from 0, from each of which on the rate is a "
         "tenth of what it was, such as 100,150 (default: none)", type=epochs, metavar="E,E")
    add_sgd_flags(group)
    output = verb.add_argument_group("output")
    add_output_flags(output, "write weights.npz and history.json there, and checkpoints meanwhile; "
                     "required but for --resume")
    add_checkpoint_flags(output, "epoch")


def _eval(verbs):
    verb = verbs.add_parser(
        "eval", help="the error of a net", allow_abbrev=False,
        description="Print the test error of the weights in a file, which are checked against "
        "the net. A packed file, such as model.npz of lcref compress, says itself which net and "
        "data it is for.", epilog="For example: lcref eval resnet20.npz --net resnet20 --data "
        "cifar10 --threads 2. Weights of another --activation fit as well, and give a large error.")
    verb.set_defaults(run=_command("training", "run_eval"))
    verb.add_argument("file", metavar="FILE", type=path, help=f"a packed file, or {WEIGHTS}")
    add_net_flags(verb, reference=False)
    verb.add_argument("--train", action="store_true", help="the training error too")
    verb.add_argument("--from-parts", action="store_true", help="of a packed file: multiply part "
                      "by part and add, without the dense weights; the same up to rounding")
    add_threads(verb)
    add_device(verb)
    add_output_flags(verb, None)


def _info(verbs):
    verb = verbs.add_parser(
        "info", help="what a packed file holds", allow_abbrev=False,
        description="Print the parts of a packed file, such as model.npz of lcref compress, the "
        "bits of every layer, and the ratio by both storage conventions and by the file's size.")
    verb.set_defaults(run=_command("info", "run_info"))
    verb.add_argument("file", metavar="FILE", type=path, help="a packed file")
    verb.add_argument("--flops", action="store_true", help="also the multiplications and additions "
                      "of every layer for one input, from the parts and dense")
    add_output_flags(verb, None)


def _export(verbs):
    verb = verbs.add_parser(
        "export", help="dense weights of a packed file, for other programs", allow_abbrev=False,
        description="Write the tensors of a packed file, decompressed, under PyTorch's names.")
    verb.set_defaults(run=_command("info", "run_export"))
    verb.add_argument("file", metavar="FILE", type=path, help="a packed file")
    verb.add_argument("--to", required=True, choices=("npz", "safetensors"))
    flag(verb, "--out", "the file to write (default: FILE-dense, beside it)", type=path)
    add_output_flags(verb, None)


def _explain(verbs):
    verb = verbs.add_parser(
        "explain", help="what a projection, a part or a step solves, and why", allow_abbrev=False,
        description="Print the problem, the solution and why it is optimal, what is guaranteed, "
        "the cost, the source, where the code is, and where the oracle that tests it. Without NAME "
        "a list of all names.", epilog="For example: lcref explain kmeans_l0")
    verb.set_defaults(run=_command("explain", "run_explain"))
    either = verb.add_mutually_exclusive_group()
    either.add_argument("name", nargs="?", metavar="NAME", help="such as l0_ball, parts.Sum, "
                        "c_step or quantize")
    either.add_argument("--list", action="store_true", help="all names, as without NAME")
    verb.add_argument("--json", action="store_true", help="one JSON object instead, by full name")
    verb.add_argument("--debug", action="store_true", help="show the traceback of an error")


def _bench(verbs):
    verb = verbs.add_parser(
        "bench", help="the speed of projections and L steps, against other libraries",
        allow_abbrev=False,
        description="Time every projection beside one numpy.sort, one copy of its data and the "
        "other libraries that are installed, with its peak memory, and the L steps of LeNet300, "
        "LeNet5 and ResNet20 beside PyTorch's; all in turns. Takes a few minutes; other programs "
        "that run meanwhile spoil it. The group targets measures what the README states as "
        "targets and says which are met; with n up to 10⁷, it takes longer.",
        epilog="For example: lcref bench projections --only kmeans --sizes 1e5,1e6 --out speed")
    verb.set_defaults(run=_command("bench.command", "run"))
    verb.add_argument("what", nargs="*", metavar="GROUP", help="projections, lsteps or targets "
                      "(default: projections and lsteps; with --net, lsteps)")
    flag(verb, "--only", "only rows with this in their name; repeat it for more", metavar="TEXT",
         action="append")
    flag(verb, "--net", "of L steps, only this one: lenet300, lenet5 or resnet20", metavar="NET")
    flag(verb, "--sizes", "numbers of weights of a projection, from 1 to 1e9", "1e4,1e5,1e6",
         type=sizes, metavar="N,N")
    flag(verb, "--dtype", "of these weights; of targets they are float64", "float64",
         choices=("float32", "float64"))
    flag(verb, "--turns", "turns that are counted, of each; calls of over a second have three, "
         "over 5 seconds one", 7, type=SOME, metavar="N")
    add_threads(verb, "threads of each")
    add_device(verb, "where all but other libraries is computed; PyTorch's L step on a GPU too")
    add_output_flags(verb, "write bench.json, the tables as bench.md and the times against n as "
                     "times.png there")


def _verify(verbs):
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
    flag(verb, "--compress", "the sum, for kind sum", metavar="TEXT")
    flag(verb, "--max-examples", "inputs for each property", 100, type=SOME, metavar="N")
    flag(verb, "--claims", "optional properties that it claims to have: names with commas, or "
         "all", metavar="NAMES", action="append")
    flag(verb, "--expect-fail", "a property that is known to fail, as NAME=reason; repeat it for "
         "more; one that passes fails", metavar="NAME=reason", action="append")
    flag(verb, "--time-limit", "seconds for one call", 10.0, type=POSITIVE, metavar="S")
    add_device(verb, "where the function is handed its arrays, and may leave its answers")
    add_result_flags(verb)


def _certify(verbs):
    verb = verbs.add_parser(
        "certify", help="judge one compressed model at full size", allow_abbrev=False,
        description="Judge the weights of MODEL.npz as a compression of those of REF.npz: "
        "feasible or not, and how far from the nearest feasible point at most. Exit status 0: "
        "feasible, and no feasible point that is nearer is known; 1: not; 2: wrong usage. A model "
        "that was trained further is feasible but not nearest: give --max-excess inf. A packed "
        "MODEL.npz is judged part by part, by its own text where none is given.")
    verb.set_defaults(run=_command("verify.commands", "run_certify"))
    verb.add_argument("reference", metavar="REF.npz", type=path)
    verb.add_argument("model", metavar="MODEL.npz", type=path)
    flag(verb, "--compress", "compression of all tensors with two axes or more together",
         metavar="TEXT")
    flag(verb, "--task", "compression of the tensors named; repeat it for more", metavar="TEXT",
         action="append")
    flag(verb, "--mu", "the penalty μ, for the penalty forms", type=POSITIVE, metavar="MU")
    flag(verb, "--max-excess", "how far above the best known point the objective may be, as a "
         "share of it", 0.0, type=NUMBER, metavar="R")
    add_result_flags(verb)


def _vectors(verbs):
    verb = verbs.add_parser(
        "vectors", help="write the test vectors, for other languages", allow_abbrev=False,
        description="Copy the test vectors, one JSON file a kind, and their schema.")
    verb.set_defaults(run=_command("verify.commands", "run_vectors"))
    verb.add_argument("--out", required=True, type=path, metavar="DIR")
    verb.add_argument("--debug", action="store_true", help="show the traceback of an error")


VERBS = (_compress, _sweep, _plot, _best, _train, _eval, _info, _export, _verify, _certify,
         _vectors, _explain, _bench)
