'use strict';
// The same three projections with a plausible mistake in each.

const right = require('./projections.js');

const like = (w, data) => ({
  shape: w.shape, dtype: w.dtype, data: data.map(w.dtype === 'float32' ? Math.fround : Number),
});

// Keeps every entry at the threshold: more than κ where magnitudes tie.
function l0_ball(w, kappa) {
  const magnitudes = w.data.map(Math.abs).sort((a, b) => b - a);
  if (kappa === 0) return like(w, w.data.map(() => 0));
  const threshold = kappa >= magnitudes.length ? 0 : magnitudes[kappa - 1];
  return like(w, w.data.map((x) => (Math.abs(x) >= threshold ? x : 0)));
}

// Takes the median of |w| for the scale: the best one for the sum of distances, not of squares.
function binary(w, scale) {
  const magnitudes = w.data.map(Math.abs).sort((a, b) => a - b);
  const n = magnitudes.length;
  const median = (magnitudes[(n - 1) >> 1] + magnitudes[n >> 1]) / 2;
  const a = scale ? median : 1;
  return like(w, w.data.map((x) => (x < 0 ? -a : a)));
}

// One run of Lloyd's algorithm from equal shares of the sorted data: a local optimum.
function kmeans(w, k) {
  const distinct = [...new Set(Float64Array.from(w.data).sort())];
  if (distinct.length <= k) return right.kmeans(w, k);
  let centres = Array.from({ length: k },
    (_, c) => distinct[Math.floor(((2 * c + 1) * distinct.length) / (2 * k))]);
  const nearest = (x) => {
    let best = 0;
    centres.forEach((c, i) => { if (Math.abs(x - c) < Math.abs(x - centres[best])) best = i; });
    return best;
  };
  for (let step = 0; step < 100; step += 1) {
    const groups = centres.map(() => []);
    w.data.forEach((x) => groups[nearest(x)].push(x));
    centres = groups.map((group, c) => (group.length === 0 ? centres[c]
      : group[0] + group.reduce((sum, x) => sum + (x - group[0]), 0) / group.length));
  }
  return like(w, w.data.map((x) => centres[nearest(x)]));
}

module.exports = { l0_ball, binary, kmeans };
