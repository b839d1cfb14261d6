"""The published vectors: right, reproducible, and failed by the mistakes they should catch."""

import json
import os
import shutil
import subprocess
import sys
from fractions import Fraction
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest

from lcref import LowRank, Prune, Quantize, Schedule, Task, projections
from lcref.lc import iterate
from lcref.lsteps import LeastSquares
from lcref.text import parse
from lcref.verify import oracles, vectors
from lcref.verify.vectors import generate, lint, traces
from lcref.verify.vectors.flags import FLAGS
from lcref.verify.vectors.judge import verdict

FOLDER = Path(vectors.__file__).parent
JAVASCRIPT = Path(__file__).parent / "javascript"
KINDS = list(generate.PARAMETERS)
PROJECTIONS = [kind for kind in KINDS if kind not in ("sum", "lc")]
for_every_kind = pytest.mark.parametrize("kind", KINDS)


def project_sum(w, text):
    return parse(text).project(w)


def run_lc(X, y, w, projection, budget, mu0, a, steps, penalty):
    compression = {"l0_ball": lambda: Prune(kappa=budget), "l1_ball": lambda: Prune(radius=budget),
                   "kmeans": lambda: Quantize(k=budget)}[projection]()
    path = iterate({"weight": w}, [Task("weight", compression)], LeastSquares(X, y),
                   Schedule(mu0, a, steps, penalty))
    return [(s.params["weight"], s.delta["weight"], s.lam["weight"]) for s in path]


def ours(kind):
    return {"sum": project_sum, "lc": run_lc}.get(kind) or getattr(projections, kind)


# ---- the files are right


@for_every_kind
def test_lint_finds_nothing(kind):
    text = (FOLDER / f"{kind}.json").read_text(encoding="utf-8")
    assert lint.lint_text(kind, text) == []


def test_there_are_enough_cases_in_small_files():
    counts = {kind: len(vectors.cases(kind)) for kind in KINDS}
    assert sum(counts.values()) - counts["lc"] >= lint.LEAST_CASES
    assert min(counts[kind] for kind in PROJECTIONS) >= 95 and counts["lc"] >= lint.LEAST_RUNS
    sizes = [(FOLDER / f"{kind}.json").stat().st_size for kind in KINDS]
    assert max(sizes) < 10**6 and sum(sizes) < 3 * 10**6


def test_every_flag_is_used_and_every_kind_has_its_file():
    used = {flag for kind in KINDS for case in vectors.cases(kind) for flag in case.flags}
    assert used == set(FLAGS)
    assert vectors.kinds() == sorted(KINDS)


@for_every_kind
def test_our_answers_pass(kind):
    assert vectors.check(ours(kind), kind) == []


@for_every_kind
def test_the_same_vectors_are_computed_again(kind):
    """All but the answers, whose last bits may differ, to the letter; the answers by judging."""
    shipped, again = vectors.load(kind), generate.document(kind)
    answers = () if kind == "lc" else ("theta", "parts", "tolerance")
    for old, new in zip(shipped["cases"], again["cases"], strict=True):
        assert stripped(old, answers) == stripped(new, answers)
        if answers:
            first, second = (vectors.case_of(shipped, fields) for fields in (old, new))
            assert second.tolerance == pytest.approx(first.tolerance, rel=0.02, abs=1e-300)
            given = tuple(map(vectors.decode, new["parts"])) if kind == "sum" else second.theta
            assert verdict(first, given) is None
    del shipped["cases"], again["cases"]
    assert shipped == again


def stripped(fields, answers):
    """A case without its answer, and without the positions that only an answer gives."""
    left = {name: value for name, value in fields.items() if name not in answers}
    certificate = dict(left["certificate"])
    if certificate["how"] == "runs" and not certificate["searched"]:
        del certificate["corrected"]
    return {**left, "certificate": certificate}


def test_the_shipped_files_are_what_write_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "PARAMETERS", {"lc": generate.PARAMETERS["lc"]})
    assert generate.main(["write", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "lc.json").read_bytes() == (FOLDER / "lc.json").read_bytes()
    document = json.loads((tmp_path / "lc.json").read_text(encoding="utf-8"))
    (tmp_path / "lc.json").write_text(json.dumps(document), encoding="utf-8")
    assert lint.lint_text("lc", json.dumps(document)) == ["not in the canonical form; run fmt"]
    assert generate.main(["fmt", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "lc.json").read_bytes() == (FOLDER / "lc.json").read_bytes()


def test_a_run_by_hand_is_the_trace():
    """X = I, w_ref = y = (3, 1), κ = 1, μ = 1: two steps worked by hand."""
    y = np.array([3.0, 1.0])
    problem = traces.Problem(np.eye(2), y, y, "l0_ball", 1, 1.0, 1.0, 2, "augmented")
    start, first, second = traces.run(problem)
    half = Fraction(1, 2)
    assert start.theta == [3, 0]
    assert (first.w, first.theta, first.lam) == ([3, half], [3, 0], [0, -half])
    # w_2 = (1 + 0 − 1/2)/2 = 1/4, λ_2 = −1/2 − 1/4
    assert (second.w, second.lam) == ([3, half / 2], [0, -3 * half / 2])
    assert first.objective == half / 2  # ½·(1/2)² of L and as much of the penalty


# ---- unique, and bounds, by searches that share nothing with those that made them


def scaled(levels, free):
    """(cost, θ) of all patterns of levels, each at its best scale."""
    def points(x, *_):
        for s in product(levels, repeat=len(x)):
            along, norm = sum(a * b for a, b in zip(x, s)), sum(b * b for b in s)
            a = (max(along, 0) / norm if norm else Fraction(0)) if free else 1
            yield tuple(a * b for b in s)
    return points


def blocks(x, k):
    """θ of all ways to give each entry one of k labels."""
    for labels in product(range(k), repeat=len(x)):
        means = {c: Fraction(sum(v for v, at in zip(x, labels) if at == c), labels.count(c))
                 for c in labels}
        yield tuple(means[c] for c in labels)


def with_corrections(points, kappa):
    """θ of all supports of κ entries, those corrected, the others from points."""
    def of(x):
        for kept in combinations(range(len(x)), max(len(x) - kappa, 0)):
            for inner in points([x[i] for i in kept]):
                at = dict(zip(kept, inner))
                yield tuple(at.get(i, v) for i, v in enumerate(x))
    return of


def search_of(kind, parameters):
    """A function of w that yields feasible θ, all optimal ones among them; None: too many."""
    if kind in ("binary", "ternary"):
        return scaled((-1, 1) if kind == "binary" else (-1, 0, 1), parameters[0])
    if kind in ("nearest", "scaled_codebook", "codebook_l0"):
        free = kind == "scaled_codebook"
        points = scaled([Fraction(float(c)) for c in parameters[0]], free)
        return with_corrections(points, parameters[1]) if kind == "codebook_l0" else points
    return {
        "l0_ball": lambda kappa: with_corrections(lambda x: [(Fraction(0),) * len(x)], kappa),
        "kmeans": lambda k: lambda x: blocks(x, min(k, 4)),
        "kmeans_l0": lambda k, kappa: with_corrections(lambda x: blocks(x, k), kappa),
        "scaled_binary_l0": lambda kappa: with_corrections(scaled((-1, 1), True), kappa),
        "round_to": lambda dtype: scaled((-2, -1, 0, 1), True) if dtype == "int2" else None,
    }[kind](*parameters)


@pytest.mark.parametrize("kind", ["nearest", "binary", "ternary", "scaled_codebook", "kmeans",
                                  "l0_ball", "round_to", "codebook_l0", "scaled_binary_l0",
                                  "kmeans_l0"])
def test_unique_is_what_a_search_of_all_optimal_points_says(kind):
    seen = []
    for case in vectors.cases(kind):
        w, *parameters = case.arguments
        search = search_of(kind, parameters)
        if not 0 < w.size <= 4 or search is None:
            continue
        x = [Fraction(v) for v in w.ravel().tolist()]
        costs = {theta: sum((a - b) ** 2 for a, b in zip(x, theta)) for theta in search(x)}
        least = min(costs.values())
        assert float(least) == case.optimum, case.id
        assert (sum(cost == least for cost in costs.values()) == 1) == case.unique, case.id
        seen.append(case.unique)
    assert len(seen) >= 20 or kind == "round_to" and len(seen) >= 5
    assert {True, False} <= set(seen) or kind == "round_to"


def test_the_decimal_singular_values_agree_with_the_rotations_in_longdouble():
    for case in vectors.cases("rank_ball"):
        w, rank = case.arguments
        norm = sum((Fraction(v) ** 2 for v in w.ravel().tolist()), Fraction(0))
        off = abs(oracles.rank_ball(w, rank) - Fraction(case.optimum))
        least = Fraction(2) ** -1074
        assert off <= 8 * w.size * Fraction(2) ** -52 * norm + least, case.id


def test_the_lower_bounds_by_search_are_found_again_in_floating_point():
    text = "quantize(codebook=[-1, 0, 1]) + lowrank(rank=1)"
    chosen = [case for case in vectors.cases("sum") if case.arguments[1] == text
              and case.fields["certificate"]["lower"] == "search" and case.arguments[0].size <= 6]
    assert len(chosen) >= 2
    for case in chosen:
        w = case.arguments[0].astype(float)
        patterns = np.array(list(product((-1, 0, 1), repeat=w.size))).reshape(-1, *w.shape)
        least = np.min(np.linalg.svd(w - patterns, compute_uv=False)[:, -1]) ** 2
        lower = float.fromhex(case.fields["bound"]["lower"])
        assert least == pytest.approx(lower, rel=1e-9, abs=1e-12)


# ---- lint sees what is wrong


def spoilt_theta(case):
    case["theta"]["data"][0] = (float.fromhex(case["theta"]["data"][0]) + 0.125).hex()


def spoilt_optimum(case):
    case["optimum"] = (float.fromhex(case["optimum"]) + 0.125).hex()
    case["certificate"].pop("exact", None)


def an_optimum_off_by_one_bit(case):
    case["optimum"] = float(np.nextafter(float.fromhex(case["optimum"]), 1e9)).hex()
    case["certificate"].pop("exact", None)


def another_exact_optimum(case):
    case["certificate"]["exact"] = "1/3"


def a_flag_too_many(case):
    case["flags"].append("tiny")


def a_flag_too_few(case):
    case["flags"] = [flag for flag in case["flags"] if flag != "duplicates"]


def a_flag_of_no_file(case):
    case["flags"].append("sparkling")


def unique_where_it_is_not(case):
    case["unique"] = not case["unique"]


def a_short_hex_text(case):
    case["w"]["data"][0] = "0x1p+0"


def another_parameter(case):
    case["kappa"] += 1


def a_field_too_many(case):
    case["comment"] = "hello"


@pytest.mark.parametrize("spoil, complaint", [
    (spoilt_theta, "not feasible"), (spoilt_optimum, "the certificate gives"),
    (an_optimum_off_by_one_bit, "the certificate gives"), (another_exact_optimum, "the exact opt"),
    (a_flag_too_many, "['tiny'] do not fit"), (a_flag_too_few, "['duplicates'] do not fit"),
    (a_flag_of_no_file, "is not explained"), (unique_where_it_is_not, "contradict each other"),
    (a_short_hex_text, "does not match"), (another_parameter, "the certificate gives"),
    (a_field_too_many, "Additional properties")],
    ids=lambda x: getattr(x, "__name__", None))
def test_lint_names_what_is_wrong(spoil, complaint):
    document = vectors.load("l0_ball")
    case = next(c for c in document["cases"] if "duplicates" in c["flags"] and c["unique"]
                and float.fromhex(c["theta"]["data"][0]) == 0 < float.fromhex(c["optimum"]) < 1e3
                and c["kappa"] > 0 and c["w"]["dtype"] == "float64")
    spoil(case)
    found = lint.lint_text("l0_ball", generate.text_of(document))
    assert found and all(complaint in message for message in found[:1])
    assert case["id"] in found[0] or spoil in (a_flag_of_no_file, a_short_hex_text,
                                               a_field_too_many)


def test_lint_fails_with_status_1(tmp_path, capsys):
    vectors.write(tmp_path)
    document = json.loads((tmp_path / "nearest.json").read_text(encoding="utf-8"))
    document["cases"] = document["cases"][:2] * 2
    (tmp_path / "nearest.json").write_text(generate.text_of(document), encoding="utf-8")
    found = lint.lint_text("nearest", (tmp_path / "nearest.json").read_text(encoding="utf-8"))
    assert "nearest-0001: the id occurs 2 times" in found


# ---- mistakes seen in public libraries: each fails, on a case with the flag named


def slice_of_kappa(w, kappa):
    theta = np.zeros_like(w)
    kept = np.argsort(np.abs(w), axis=None)[-kappa:]
    theta.flat[kept] = w.flat[kept]
    return theta


def ties_kept(w, kappa):
    if kappa == 0 or w.size == 0:
        return 0 * w
    return w * (np.abs(w) >= np.sort(np.abs(w), axis=None)[-min(kappa, w.size)])


def overwritten(w, kappa):
    theta = projections.l0_ball(w, kappa).decompress()
    w[...] = theta
    return theta


def extra_axis(w, kappa):
    return projections.l0_ball(w, kappa).decompress()[None]


def soft(w, tau):
    return (np.sign(w) * np.maximum(np.abs(w) - tau, 0)).astype(w.dtype)


def thresholds(w, r):
    x = np.sort(np.abs(w.astype(float)), axis=None)[::-1]
    return x, (np.cumsum(x) - r) / np.arange(1, x.size + 1)


def one_index_late(w, r):
    x, taus = thresholds(w, r)
    if x.sum() <= r:
        return w.copy()
    j = int(np.sum(x > taus))
    return soft(w, taus[min(j, x.size - 1)])


def inside_forgotten(w, r):
    x, taus = thresholds(w, r)
    return w.copy() if w.size == 0 else soft(w, max(taus[max(int(np.sum(x > taus)), 1) - 1], 1e-2))


def textbook(w, r):
    """Right in exact arithmetic; abs(w) − τ rounds to a spacing of abs(w), not of r."""
    x, taus = thresholds(w, r)
    return w.copy() if x.sum() <= r else soft(w, taus[max(int(np.sum(x > taus)), 1) - 1])


def bisected(w, r):
    low, high = 0.0, float(np.max(np.abs(w), initial=0))
    if np.sum(np.abs(w.astype(float))) <= r:
        return w.copy()
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        above = np.sum(np.maximum(np.abs(w) - middle, 0)) > r
        low, high = (middle, high) if above else (low, middle)
    return soft(w, low)


def nearest_centres(w, centres):
    codes = np.argmin(np.abs(w.astype(float)[..., None] - centres), axis=-1)
    return centres[codes].astype(w.dtype)


def lloyd(w, k):
    x = np.unique(w.astype(float))
    if x.size <= k:
        return w.copy()
    centres = x[(2 * np.arange(k) + 1) * x.size // (2 * k)]
    for _ in range(50):
        theta = nearest_centres(w.astype(float), centres)
        centres = np.array([np.mean(w[theta == c], dtype=float) if np.any(theta == c) else c
                            for c in centres])
    return nearest_centres(w, centres)


def uncentred(w, k):
    x = np.sort(w.astype(float), axis=None)
    if np.unique(x).size <= k or k != 2:
        return projections.kmeans(w, k)
    sums, squares = np.cumsum(x), np.cumsum(x * x)
    j = np.arange(1, x.size)
    left = squares[:-1] - sums[:-1]**2 / j
    right = squares[-1] - squares[:-1] - (sums[-1] - sums[:-1])**2 / (x.size - j)
    cut = int(np.argmin(left + right)) + 1
    centres = np.array([x[:cut].mean(), x[cut:].mean()])
    return np.where(w < x[cut], *centres).astype(w.dtype)


def invented_centroids(w, k):
    if w.size == 0:
        return w.copy()
    chunks = np.array_split(np.sort(w.astype(float), axis=None), min(k, w.size))
    return nearest_centres(w, np.array([chunk.mean() for chunk in chunks]))


def a_median(w, k):
    return projections.kmeans(w, k) if k > 1 or not w.size else np.full_like(w, np.median(w))


def sign_of_zero(w, scale):
    return (np.sign(w) * (np.mean(np.abs(w)) if scale and w.size else 1)).astype(w.dtype)


def scale_ignored(w, scale):
    return projections.binary(w, False)


def scale_of_all(w, scale):
    """The mean magnitude of all weights for {−a, 0, a}, as ternary nets take it."""
    a = np.mean(np.abs(w)) if scale and w.size else 1
    return (np.sign(w) * (np.abs(w) >= a / 2) * a).astype(w.dtype)


def floor_entry(w, codebook):
    return codebook[np.clip(np.searchsorted(codebook, w), 0, len(codebook) - 1)]


def rounded_logarithm(w, c):
    with np.errstate(all="ignore"):
        power = np.clip(np.rint(np.log2(np.abs(w.astype(float)))), -c, 0)
    return (np.sign(w) * 2.0**power * (np.abs(w) >= 2.0**-c / 2)).astype(w.dtype)


def by_magnitude(w, codebook):
    """Signs handled by abs(w), as if the codebook were symmetric."""
    theta = projections.scaled_codebook(np.abs(w), codebook).decompress()
    return np.where(w < 0, -theta, theta)


def scaled_to_the_maximum(w, dtype):
    if not dtype.startswith("int") or not np.any(w):
        return projections.round_to(w, dtype)
    unit = np.max(np.abs(w)) / (2 ** (int(dtype[3:]) - 1) - 1)
    return (np.rint(w / unit) * unit).astype(w.dtype) if unit else w.copy()


def overflowing(w, dtype):
    with np.errstate(all="ignore"):
        return (w.astype(np.float16).astype(w.dtype) if dtype == "float16" else
                projections.round_to(w, dtype))


def half_the_price(w, alpha, mu):
    return w * (w * w > alpha / mu)


def mu_ignored(w, alpha, mu):
    return soft(w, alpha)


def norms_in_float32(w, kappa, axis):
    with np.errstate(all="ignore"):
        others = tuple(i for i in range(w.ndim) if i != axis % w.ndim)
        norms = np.sum(w * w, axis=others)
    norms[~np.isfinite(norms)] = 0
    kept = np.argsort(-norms, kind="stable")[:kappa]
    theta = np.zeros_like(w)
    at = tuple(kept if i == axis % w.ndim else slice(None) for i in range(w.ndim))
    theta[at] = w[at]
    return theta


def axis_ignored(w, kappa, axis):
    return projections.group_l0_ball(w, kappa, 0)


def nothing_at_full_rank(w, rank):
    return np.zeros_like(w) if rank >= min(w.shape) else projections.rank_ball(w, rank)


def rank_ignored(w, rank):
    return projections.rank_ball(w, 1)


def price_of_rows(w, alpha, mu, cost):
    return projections.rank_selection(w, alpha, mu, lambda r: 2 * r * w.shape[0])


def largest_corrected(w, codebook, kappa):
    """The largest weights corrected, instead of the largest residuals."""
    s = projections.l0_ball(w, kappa).decompress()
    return np.where(s != 0, w, projections.nearest(w, codebook).decompress())


def largest_magnitudes_corrected(w, kappa):
    s = projections.l0_ball(w, kappa).decompress()
    kept = np.abs(w[s == 0]).astype(float)
    a = kept.mean() if kept.size else 0.0
    return np.where(s != 0, w, np.where(w < 0, -a, a)).astype(w.dtype)


def uncentred_windows(w, kappa):
    order = np.argsort(np.abs(w.astype(float)), axis=None)
    m, size = np.abs(w.astype(float)).ravel()[order], w.size - kappa
    if size <= 0:
        return w.copy()
    sums, squares = (np.cumsum([0, *values]) for values in (m, m * m))
    costs = squares[size:] - squares[:-size] - (sums[size:] - sums[:-size])**2 / size
    kept = order[np.argmin(costs):][:size]
    theta = w.copy()
    theta.flat[kept] = np.where(w.flat[kept] < 0, -1, 1) * np.abs(w).flat[kept].mean()
    return theta


def alternated(w, k, kappa):
    s = np.zeros_like(w)
    for _ in range(20):
        theta = projections.kmeans(w - s, k).decompress()
        s = projections.l0_ball(w - theta, kappa).decompress()
    return theta + s


def each_on_its_own(w, text):
    """Every part projects w itself, not the residual of the others."""
    return tuple(term.project(w).decompress() for term in parse(text).terms)


def one_part(w, text):
    """The first part alone, the others ignored."""
    first, *others = parse(text).terms
    return first.project(w).decompress(), *(np.zeros_like(w) for _ in others)


def pruning_last(w, text):
    """The parts in another order than that of the text."""
    parts = parse(text).project(w).parts
    return tuple(sorted((p.decompress() for p in parts), key=lambda p: -np.count_nonzero(p)))


MISTAKES = [
    ("l0_ball", slice_of_kappa, "zero_budget"), ("l0_ball", ties_kept, "tie"),
    ("l0_ball", overwritten, "parameter_matters"), ("l0_ball", extra_axis, "n_dimensional"),
    ("l1_ball", one_index_late, "outside"), ("l1_ball", inside_forgotten, "already_feasible"),
    ("l1_ball", bisected, "outside"), ("l1_ball", textbook, "small_radius"),
    ("kmeans", lloyd, "local_optimum"), ("kmeans", uncentred, "offset_1e8"),
    ("kmeans", invented_centroids, "duplicates"),
    ("kmeans", a_median, "one_value"), ("binary", sign_of_zero, "negative_zero"),
    ("binary", scale_ignored, "scaled"), ("binary", scale_ignored, "parameter_matters"),
    ("ternary", scale_of_all, "scaled"), ("nearest", floor_entry, "large"),
    ("powers_of_two", rounded_logarithm, "parameter_matters"),
    ("scaled_codebook", by_magnitude, "asymmetric"),
    ("round_to", scaled_to_the_maximum, "scale_by_maximum_is_worse"),
    ("round_to", overflowing, "saturates"), ("l0_penalty", half_the_price, "parameter_matters"),
    ("l1_penalty", mu_ignored, "parameter_matters"), ("group_l0_ball", norms_in_float32, "huge"),
    ("group_l0_ball", axis_ignored, "negative_axis"),
    ("rank_ball", nothing_at_full_rank, "full_rank"),
    ("rank_ball", rank_ignored, "parameter_matters"),
    ("rank_selection", price_of_rows, "tall"), ("rank_selection", price_of_rows, "wide"),
    ("codebook_l0", largest_corrected, "parameter_matters"),
    ("scaled_binary_l0", largest_magnitudes_corrected, "large"),
    ("scaled_binary_l0", uncentred_windows, "offset_1e8"),
    ("kmeans_l0", alternated, "large"), ("sum", each_on_its_own, "alternation"),
    ("sum", one_part, "pruning_first"), ("sum", pruning_last, "pruning_first"),
]


@pytest.mark.parametrize("kind, fn, flag", MISTAKES, ids=lambda x: getattr(x, "__name__", x))
def test_a_mistake_fails_where_the_flag_says(kind, fn, flag):
    failures = vectors.check(fn, kind, lambda case: flag in case.flags)
    assert failures and all(flag in failure.flags for failure in failures)


def plain_lc(X, y, w, projection, budget, mu0, a, steps, penalty, *, sign=1, frozen=False,
             late=False):
    """The loop in a few lines, with its mistakes as options."""
    fn, n = getattr(projections, projection), w.size
    theta, lam = fn(w, budget).decompress(), np.zeros(n)
    for k in range(steps):
        mu = mu0 * a ** (k + late)
        w = np.linalg.solve(X.T @ X + mu * np.eye(n), X.T @ y + mu * theta + lam)
        theta = theta if frozen else fn(w - lam / mu, budget).decompress()
        if penalty == "augmented":
            lam = lam - sign * mu * (w - theta)
        yield {"w": w, "theta": theta, "lambda": lam}


def test_the_plain_loop_follows_the_traces():
    assert vectors.check(plain_lc, "lc") == []


@pytest.mark.parametrize("mistake, flag", [
    ({"sign": -1}, "augmented_lagrangian"), ({"frozen": True}, "leaves_direct_compression"),
    ({"late": True}, "growing_mu")], ids=lambda x: x if isinstance(x, str) else next(iter(x)))
def test_a_mistake_in_the_loop_fails_every_run_with_the_flag(mistake, flag):
    runs = [case for case in vectors.cases("lc") if flag in case.flags]
    found = vectors.check(lambda *given: plain_lc(*given, **mistake), "lc",
                          lambda case: flag in case.flags)
    moving = [case for case in runs if "already_feasible" not in case.flags]
    assert runs and len(found) >= 0.9 * len(moving)


def test_exceptions_and_wrong_results_are_failures_with_a_reason():
    def wrong(w, kappa):
        raise RuntimeError("out of order")

    (first, *_) = vectors.check(wrong, "l0_ball")
    assert (first.id, first.message) == ("l0_ball-0001", "raised RuntimeError: out of order")
    reasons = [vectors.check(lambda w, kappa, x=x: x, "l0_ball")[0].message
               for x in (None, np.zeros(3, np.float32), np.full(3, np.nan))]
    assert all(word in reason for word, reason in zip(("not an array", "float32", "NaN"), reasons))


def test_a_sum_may_be_an_array_only_where_the_total_tells():
    def total(w, text):
        return parse(text).project(w).decompress()

    failures = vectors.check(total, "sum")
    assert failures and all("must be its parts" in failure.message for failure in failures)
    assert all("lowrank" in case.arguments[1] or "alternation" in case.flags
               for case in vectors.cases("sum") if case.id in {f.id for f in failures})
    assert LowRank(rank=1) in parse("lowrank(rank=1) + prune(kappa=0)").terms


# ---- reading and copying


def test_importing_the_reader_is_light():
    code = ("import sys, lcref; before = set(sys.modules); import lcref.verify.vectors; "
            "print(*sorted(set(sys.modules) - before))")
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                            check=True).stdout.split()
    heavy = ("scipy", "hypothesis", "jsonschema", "matplotlib", "lcref.verify.oracles",
             "lcref.verify.vectors.")
    assert [name for name in loaded if name.startswith(heavy)] == []


def test_an_unknown_kind_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match="no vectors of kind 'l2_ball'; there are binary, "):
        vectors.load("l2_ball")
    with pytest.raises(ValueError, match="no vectors of kind 'schema'"):
        vectors.cases("schema")


def test_write_copies_every_file_and_the_schema(tmp_path):
    paths = vectors.write(tmp_path / "new" / "folder")
    assert {path.name for path in paths} == {f"{kind}.json" for kind in [*KINDS, "schema"]}
    assert all(path.read_bytes() == (FOLDER / path.name).read_bytes() for path in paths)
    older = tmp_path / "new" / "folder" / "binary.json"
    older.write_text('{"format": "lcref-vectors", "version": 0}', encoding="utf-8")
    vectors.write(tmp_path / "new" / "folder")
    assert older.read_bytes() == (FOLDER / "binary.json").read_bytes()


@pytest.mark.parametrize("content", ['{"mine": 1}', "[1]", "no JSON"])
def test_write_overwrites_no_file_of_another_origin(tmp_path, content):
    (tmp_path / "kmeans.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match="another origin.*kmeans.json"):
        vectors.write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kmeans.json"]
    assert (tmp_path / "kmeans.json").read_text(encoding="utf-8") == content


def test_write_refuses_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "taken").write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match="taken is not a folder"):
        vectors.write(tmp_path / "taken")


# ---- another language


@pytest.fixture(scope="module")
def node():
    """Run a script on Node.js: its exit status and what it printed."""
    found = shutil.which("node")
    if found is None:
        reason = "node is not installed: the vectors are read from JavaScript on Node.js 20"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)

    def run(script, *arguments, stdin=None):
        done = subprocess.run([found, str(JAVASCRIPT / script), *map(str, arguments)], input=stdin,
                              capture_output=True, text=True, encoding="utf-8", timeout=60)
        assert not done.stderr, done.stderr
        return done.returncode, done.stdout
    return run


def test_the_right_javascript_passes(node, tmp_path):
    vectors.write(tmp_path)
    status, printed = node("vectors.js", tmp_path, JAVASCRIPT / "projections.js")
    counts = {kind: len(vectors.cases(kind)) for kind in ("l0_ball", "binary", "kmeans")}
    assert printed.splitlines() == [f"{kind}: {n} of {n} passed" for kind, n in counts.items()]
    assert status == 0


@pytest.mark.parametrize("kind, flag, words", [
    ("l0_ball", "tie", "not feasible"), ("binary", "scaled", "exceeds the optimum"),
    ("kmeans", "local_optimum", "exceeds the optimum")])
def test_each_broken_javascript_fails_by_name(node, tmp_path, kind, flag, words):
    module = tmp_path / "one_broken.js"
    module.write_text(f"const right = require({str(JAVASCRIPT / 'projections.js')!r});\n"
                      f"const {{ {kind} }} = require({str(JAVASCRIPT / 'broken.js')!r});\n"
                      f"module.exports = {{ ...right, {kind} }};\n", encoding="utf-8")
    status, printed = node("vectors.js", FOLDER, module)
    named = [line for line in printed.splitlines() if line.startswith("  ")]
    assert status == 1
    assert named and all(line.startswith(f"  {kind}-") for line in named)
    assert any(flag in line.split(":")[0] and words in line for line in named)


def test_javascript_reads_every_float_exactly_and_writes_it_back(node):
    script = ("const hex = require('./hex.js'); const fs = require('fs');"
              "const texts = JSON.parse(fs.readFileSync(0, 'utf8'));"
              "console.log(JSON.stringify(texts.map((t) => hex.encode(hex.decode(t)))));")
    path = JAVASCRIPT / "hex.js"
    texts = sorted({text for kind in ("l0_ball", "kmeans", "nearest", "rank_ball")
                    for text in lint.floats(vectors.load(kind)["cases"])})
    done = subprocess.run([shutil.which("node"), "-e", script], input=json.dumps(texts),
                          capture_output=True, text=True, cwd=path.parent, check=True)
    assert json.loads(done.stdout) == texts


def test_the_javascript_server_answers_line_by_line(node):
    case = vectors.cases("kmeans")[0]
    request = {"id": 3, "kind": "kmeans", "w": case.fields["w"], "k": case.fields["k"]}
    unknown = {"id": 4, "kind": "l2_ball", "w": case.fields["w"]}
    lines = "\n".join(map(json.dumps, (request, unknown))) + "\n"
    status, printed = node("serve.js", JAVASCRIPT / "projections.js", stdin=lines)
    first, second = map(json.loads, printed.splitlines())
    assert status == 0 and first["id"] == 3
    assert verdict(case, vectors.decode(first["theta"])) is None
    assert second == {"id": 4, "error": "kind l2_ball is not served here"}
