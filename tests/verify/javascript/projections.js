'use strict';
// Three projections on plain arrays: what somebody who does not use Python might have written.
// Each takes {shape, dtype, data} and its parameter, and returns an array like it.

function like(w, data) {
  const round = w.dtype === 'float32' ? Math.fround : Number;
  return { shape: w.shape, dtype: w.dtype, data: data.map(round) };
}

// min ‖w − θ‖² over ‖θ‖₀ ≤ κ: the κ largest magnitudes, a tie goes to the lower index.
function l0_ball(w, kappa) {
  const order = w.data.map((_, i) => i);
  order.sort((i, j) => Math.abs(w.data[j]) - Math.abs(w.data[i]) || i - j);
  const kept = new Set(order.slice(0, kappa));
  return like(w, w.data.map((x, i) => (kept.has(i) ? x : 0)));
}

// min ‖w − θ‖² over θ ∈ {−1, 1}ⁿ, or {−a, a}ⁿ with a = mean of |w|; sgn 0 = 1.
function binary(w, scale) {
  const least = Math.min(...w.data.map(Math.abs));
  const above = w.data.reduce((sum, x) => sum + (Math.abs(x) - least), 0);
  const a = scale && w.data.length ? least + above / w.data.length : 1;
  return like(w, w.data.map((x) => (x < 0 ? -a : a)));
}

// min ‖w − θ‖² over θ with at most k distinct values: the best cuts of the sorted data, by dynamic
// programming over the last one. O(k n²).
function kmeans(w, k) {
  const sorted = Float64Array.from(w.data).sort();
  if (new Set(sorted).size <= k) return like(w, w.data.slice());
  const starts = cuts(sorted, k);
  const centres = starts.map((start, c) => mean(sorted, start, starts[c + 1] ?? sorted.length));
  return like(w, w.data.map((x) => {
    let c = starts.length - 1;
    while (c > 0 && x < sorted[starts[c]]) c -= 1;
    return centres[c];
  }));
}

function mean(x, start, end) {
  let above = 0; // relative to the first, so that a large offset loses nothing
  for (let i = start; i < end; i += 1) above += x[i] - x[start];
  return x[start] + above / (end - start);
}

function cuts(x, k) {
  const n = x.length;
  const centre = mean(x, 0, n);
  const sums = [0];
  const squares = [0];
  for (let i = 0; i < n; i += 1) {
    const y = x[i] - centre;
    sums.push(sums[i] + y);
    squares.push(squares[i] + y * y);
  }
  const cost = (i, j) => squares[j] - squares[i] - (sums[j] - sums[i]) ** 2 / (j - i);
  let best = squares.map((_, j) => ({ value: j ? cost(0, j) : 0, starts: [0] }));
  for (let c = 1; c < k; c += 1) {
    const before = best;
    best = before.map((whole, j) => {
      let found = whole;
      for (let i = 1; i < j; i += 1) {
        const value = before[i].value + cost(i, j);
        if (value < found.value) found = { value, starts: [...before[i].starts, i] };
      }
      return found;
    });
  }
  return best[n].starts;
}

module.exports = { l0_ball, binary, kmeans };
