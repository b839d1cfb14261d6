"""Wrong LC loops on least squares: one right loop, from which each departs in one formula."""

from collections.abc import Callable
from itertools import combinations
from types import SimpleNamespace

import numpy as np

from . import MISTAKES, mutant

MISTAKES.update({  # of loops alone
    "wrong start": "The path does not start at direct compression.",
    "wrong order": "A step uses what comes before or after that which it should use.",
    "wrong schedule": "μ takes other values than μ0·a^k.",
    "wrong weight": "A term of the objective has another weight.",
    "term forgotten": "A term of a formula is left out.",
    "buffer reused": "The same array is returned again and again, and overwritten.",
})

# ---- the right loop


def l0_ball(w, kappa):
    """Keep the κ largest magnitudes."""
    theta = np.zeros_like(w)
    kept = np.argsort(-np.abs(w), kind="stable")[:kappa]
    theta[kept] = w[kept]
    return theta


def l1_ball(w, radius):
    """Soft threshold: with j nonzeros it is (the sum of the j largest magnitudes − r)/j."""
    magnitudes = np.sort(np.abs(w))[::-1]
    if np.sum(magnitudes) <= radius:
        return w.copy()
    thresholds = (np.cumsum(magnitudes) - radius) / np.arange(1, w.size + 1)
    theta = np.sign(w) * np.maximum(np.abs(w) - np.max(thresholds), 0)
    total = np.sum(np.abs(theta))
    if total > radius:  # by roundings, of w's size
        theta *= radius / total
    return theta


def kmeans(w, k):
    """Try all ways to cut the sorted weights into k runs, each with its mean."""
    order, best, least = np.argsort(w, kind="stable"), w, np.inf
    for cuts in combinations(range(1, w.size), min(k, w.size) - 1):
        theta = w.copy()
        for run in np.split(order, cuts):
            theta[run] = np.mean(w[run]) if np.ptp(w[run]) else w[run]
        if np.sum((w - theta) ** 2) < least:
            best, least = theta, np.sum((w - theta) ** 2)
    return best


PROJECTIONS: dict[str, Callable] = {"l0_ball": l0_ball, "l1_ball": l1_ball, "kmeans": kmeans}


def ridge(X, y, w, mu, target):
    """Minimise ½ ‖Xw − y‖² + μ/2 ‖w − t‖²."""
    return np.linalg.solve(X.T @ X + mu * np.eye(w.size), X.T @ y + mu * target)


RIGHT = {
    "start": lambda reference, theta: theta,
    "mu": lambda mu0, a, k: mu0 * a**k,
    "l_step": ridge,
    "target": lambda w, theta, lam, mu: theta + lam / mu,
    "c_step": lambda project, shifted, old: project(shifted),
    "shift": lambda w, lam, mu, old: w - lam / mu,
    "update": lambda lam, mu, w, theta, old: lam - mu * (w - theta),
    "entry": lambda w, theta, lam, mu, old: (w, theta, lam),
}


def right_loop(X, y, w, projection, budget, mu0, a, steps, penalty, **changed):
    """The LC loop; `changed` puts other functions in the place of those in RIGHT."""
    rule, path = SimpleNamespace(**RIGHT | changed), []

    def project(v):
        return PROJECTIONS[projection](v, budget)

    theta, lam = rule.start(w, project(w)), np.zeros_like(w)
    for k in range(steps):
        mu = rule.mu(mu0, a, k)
        w = rule.l_step(X, y, w, mu, rule.target(w, theta, lam, mu))
        old, theta = theta, rule.c_step(project, rule.shift(w, lam, mu, theta), theta)
        if penalty == "augmented":
            lam = rule.update(lam, mu, w, theta, old)
        path.append(rule.entry(w, theta, lam, mu, old))
    return path


# ---- the multipliers


@mutant("lc", "wrong sign of a multiplier",
        "λ has the wrong sign: μ (w − θ) is added to λ; subtract it")
def adds_to_the_multipliers(*arguments):
    return right_loop(*arguments, update=lambda lam, mu, w, theta, old: lam + mu * (w - theta))


@mutant("lc", "wrong sign of a multiplier",
        "the L step is pulled to θ − λ/μ; pull it to θ + λ/μ")
def pulls_to_theta_minus_lambda(*arguments):
    return right_loop(*arguments, target=lambda w, theta, lam, mu: theta - lam / mu)


@mutant("lc", "wrong sign of a multiplier",
        "the C step projects w + λ/μ; project w − λ/μ")
def projects_w_plus_lambda(*arguments):
    return right_loop(*arguments, shift=lambda w, lam, mu, old: w + lam / mu)


@mutant("lc", "wrong order",
        "λ is updated with the θ before the C step; take the one after it")
def updates_with_the_old_theta(*arguments):
    return right_loop(*arguments, update=lambda lam, mu, w, theta, old: lam - mu * (w - old))


@mutant("lc", "wrong order",
        "the multipliers are updated before the C step, which uses the new ones; update them last")
def updates_before_the_c_step(*arguments):
    return right_loop(*arguments, update=lambda lam, mu, w, theta, old: lam - mu * (w - old),
                      shift=lambda w, lam, mu, old: w - (lam - mu * (w - old)) / mu
                      if arguments[8] == "augmented" else w)


@mutant("lc", "term forgotten",
        "w − θ is subtracted from λ without the factor μ")
def updates_without_mu(*arguments):
    return right_loop(*arguments, update=lambda lam, mu, w, theta, old: lam - (w - theta))


@mutant("lc", "wrong order",
        "λ is updated with the μ of the next step; let μ grow after the update")
def updates_with_the_next_mu(*arguments):
    return right_loop(*arguments, update=lambda lam, mu, w, theta, old:
                      lam - arguments[6] * mu * (w - theta))


@mutant("lc", "wrong weight",
        "λ is updated with μ/2; the ½ of the penalty is gone in its gradient")
def updates_with_half_of_mu(*arguments):
    return right_loop(*arguments, update=lambda lam, mu, w, theta, old: lam - mu / 2 * (w - theta))


@mutant("lc", "term forgotten",
        "λ is replaced by −μ (w − θ); add that to the λ there is")
def replaces_the_multipliers(*arguments):
    return right_loop(*arguments, update=lambda lam, mu, w, theta, old: -mu * (w - theta))


@mutant("lc", "parameter ignored",
        "λ stays 0 with the augmented penalty too; update it")
def never_updates_the_multipliers(*arguments):
    return right_loop(*arguments, update=lambda lam, mu, w, theta, old: lam)


@mutant("lc", "parameter ignored",
        "λ is updated with the quadratic penalty too; leave it 0")
def updates_with_the_quadratic_penalty(*arguments):
    return right_loop(*(*arguments[:8], "augmented"))


@mutant("lc", "parameter misread",
        "λ/μ is carried from step to step while μ grows; scale it by the old μ over the new one")
def never_rescales_the_scaled_multipliers(X, y, w, projection, budget, mu0, a, steps, penalty):
    return right_loop(X, y, w, projection, budget, mu0, a, steps, penalty,
                      target=lambda w, theta, u, mu: theta + u,
                      shift=lambda w, u, mu, old: w - u,
                      update=lambda u, mu, w, theta, old: u - (w - theta),
                      entry=lambda w, theta, u, mu, old: (w, theta, mu * u))


@mutant("lc", "parameter misread",
        "what is returned as λ is λ/μ; multiply it by μ")
def returns_lambda_over_mu(*arguments):
    return right_loop(*arguments, entry=lambda w, theta, lam, mu, old: (w, theta, lam / mu))


# ---- the L step


@mutant("lc", "term forgotten",
        "the L step is pulled to θ alone; pull it to θ + λ/μ")
def pulls_to_theta_alone(*arguments):
    return right_loop(*arguments, target=lambda w, theta, lam, mu: theta)


@mutant("lc", "term forgotten",
        "the L step is pulled to θ + λ; divide λ by μ")
def pulls_to_theta_plus_undivided_lambda(*arguments):
    return right_loop(*arguments, target=lambda w, theta, lam, mu: theta + lam)


@mutant("lc", "wrong order",
        "the L step is pulled to the last w + λ/μ; pull it to θ + λ/μ")
def pulls_to_the_last_w(*arguments):
    return right_loop(*arguments, target=lambda w, theta, lam, mu: w + lam / mu)


@mutant("lc", "wrong weight",
        "the penalty is μ ‖w − θ − λ/μ‖²; it is half of that")
def doubles_the_penalty(*arguments):
    return right_loop(*arguments, l_step=lambda X, y, w, mu, t: ridge(X, y, w, 2 * mu, t))


@mutant("lc", "wrong weight",
        "the loss is ‖Xw − y‖²; it is half of that")
def doubles_the_loss(*arguments):
    return right_loop(*arguments, l_step=lambda X, y, w, mu, t: ridge(X, y, w, mu / 2, t))


@mutant("lc", "wrong weight",
        "the loss is a mean over the rows of X; it is the sum")
def averages_the_loss(*arguments):
    return right_loop(*arguments, l_step=lambda X, y, w, mu, t: ridge(X, y, w, len(y) * mu, t))


@mutant("lc", "stopped early",
        "the L step is one gradient step from w = 0; minimise to the end")
def takes_one_gradient_step_from_zero(*arguments):
    def l_step(X, y, w, mu, target):
        return (X.T @ y + mu * target) / (np.linalg.norm(X, 2) ** 2 + mu)

    return right_loop(*arguments, l_step=l_step)


@mutant("lc", "stopped early",
        "the L step is a few gradient steps from the last w; minimise to the end")
def takes_three_gradient_steps(*arguments):
    def l_step(X, y, w, mu, target):
        for _ in range(3):
            gradient = X.T @ (X @ w - y) + mu * (w - target)
            w = w - gradient / (np.linalg.norm(X, 2) ** 2 + mu)
        return w

    return right_loop(*arguments, l_step=l_step)


@mutant("lc", "term forgotten",
        "the L step forgets the loss and returns θ + λ/μ")
def forgets_the_loss(*arguments):
    return right_loop(*arguments, l_step=lambda X, y, w, mu, target: 1 * target)


# ---- μ


@mutant("lc", "wrong schedule",
        "μ grows before the first step; the first μ is μ0")
def grows_mu_too_early(*arguments):
    return right_loop(*arguments, mu=lambda mu0, a, k: mu0 * a ** (k + 1))


@mutant("lc", "wrong schedule",
        "μ grows linearly; multiply it by a at every step")
def grows_mu_linearly(*arguments):
    return right_loop(*arguments, mu=lambda mu0, a, k: mu0 * (1 + k * (a - 1)))


@mutant("lc", "parameter ignored",
        "μ does not grow; multiply it by a at every step")
def never_grows_mu(*arguments):
    return right_loop(*arguments, mu=lambda mu0, a, k: mu0)


# ---- the C step


@mutant("lc", "term forgotten",
        "the C step projects w; project w − λ/μ")
def projects_w_alone(*arguments):
    return right_loop(*arguments, shift=lambda w, lam, mu, old: w)


@mutant("lc", "term forgotten",
        "the C step projects w − λ; divide λ by μ")
def projects_w_minus_undivided_lambda(*arguments):
    return right_loop(*arguments, shift=lambda w, lam, mu, old: w - lam)


@mutant("lc", "wrong order",
        "the C step projects θ + λ/μ, what the L step was pulled to; project w − λ/μ")
def projects_the_target(*arguments):
    return right_loop(*arguments, shift=lambda w, lam, mu, old: old + lam / mu)


@mutant("lc", "never refitted",
        "θ stays at direct compression; project again in every step")
def never_compresses_again(*arguments):
    return right_loop(*arguments, c_step=lambda project, shifted, old: 1 * old)


@mutant("lc", "never refitted",
        "only the entries that direct compression kept can be nonzero; choose them anew")
def keeps_the_first_support(*arguments):
    return right_loop(*arguments, c_step=lambda project, shifted, old:
                      project(np.where(old != 0, shifted, 0)))


@mutant("lc", "set too large",
        "what is returned as θ is w; return the compressed weights")
def returns_uncompressed_weights(*arguments):
    return right_loop(*arguments, entry=lambda w, theta, lam, mu, old: (w, 1 * w, lam))


# ---- start and end


@mutant("lc", "wrong start",
        "the path starts at θ = 0; start at the projection of the reference")
def starts_at_zero(*arguments):
    return right_loop(*arguments, start=lambda reference, theta: 0 * theta)


@mutant("lc", "wrong start",
        "the path starts at θ = w; start at the projection of the reference")
def starts_at_the_reference(*arguments):
    return right_loop(*arguments, start=lambda reference, theta: 1 * reference)


@mutant("lc", "off by one",
        "the loop ends one step too early; μ takes the values k = 0 .. steps − 1")
def ends_one_step_early(*arguments):
    return right_loop(*arguments)[:max(arguments[7] - 1, 1)]


@mutant("lc", "off by one",
        "the start is returned as a step; return the steps alone")
def returns_the_start_too(*arguments):
    X, y, w, projection, budget = arguments[:5]
    start = (w.copy(), PROJECTIONS[projection](w, budget), np.zeros_like(w))
    return [start, *right_loop(*arguments)]


@mutant("lc", "off by one",
        "θ is returned as it was before the C step")
def returns_the_old_theta(*arguments):
    return right_loop(*arguments, entry=lambda w, theta, lam, mu, old: (w, 1 * old, lam))


@mutant("lc", "nothing returned",
        "only the last step is returned; return them all")
def returns_only_the_last_step(*arguments):
    return right_loop(*arguments)[-1]


# ---- arrays


@mutant("lc", "buffer reused",
        "every step returns the same arrays, which the next one overwrites; return copies")
def returns_the_same_arrays(*arguments):
    buffers = tuple(np.empty_like(arguments[2]) for _ in range(3))

    def entry(w, theta, lam, mu, old):
        for buffer, x in zip(buffers, (w, theta, lam)):
            buffer[...] = x
        return buffers

    return right_loop(*arguments, entry=entry)


@mutant("lc", "input overwritten",
        "the L step writes its weights into the caller's w; work on a copy")
def writes_into_the_reference(*arguments):
    path = right_loop(*arguments)
    arguments[2][...] = path[-1][0]
    return path


@mutant("lc", "input overwritten",
        "X is scaled in place; work on a copy")
def writes_into_the_data(X, y, *others):
    path = right_loop(X, y, *others)
    X /= np.max(np.abs(X))
    return path
