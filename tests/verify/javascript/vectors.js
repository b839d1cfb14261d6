'use strict';
// Judge a module of projections by the test vectors: node vectors.js FOLDER MODULE
//
// Prints a line a kind, and a line for each case that fails; exit status 1 where one does.

const fs = require('fs');
const path = require('path');
const hex = require('./hex.js');

const distinct = (data) => new Set(data.map((x) => x + 0)).size; // -0 + 0 is 0

const FEASIBLE = {
  l0_ball: (theta, kappa) => theta.filter((x) => x !== 0).length <= kappa,
  binary: (theta, scale) => (scale ? distinct(theta.map(Math.abs)) <= 1
    : theta.every((x) => Math.abs(x) === 1)),
  kmeans: (theta, k) => distinct(theta) <= k,
};

function array(field) {
  return { shape: field.shape, dtype: field.dtype, data: field.data.map(hex.decode) };
}

// What is wrong with an answer, or null.
function complaint(kind, w, parameter, found, optimum, tolerance) {
  const { data } = found;
  if (found.dtype !== w.dtype || String(found.shape) !== String(w.shape)) {
    return `shape [${found.shape}] and ${found.dtype}, not w's [${w.shape}] and ${w.dtype}`;
  }
  if (data.length !== w.data.length || !data.every(Number.isFinite)) {
    return `not ${w.data.length} finite numbers: [${data}]`;
  }
  if (w.dtype === 'float32' && !data.every((x) => Math.fround(x) === x)) return 'not float32';
  if (!FEASIBLE[kind](data, parameter)) return `not feasible: [${data}]`;
  if (hex.distance(w.data, data) > hex.limit(optimum, tolerance)) {
    return `the objective of [${data}] exceeds the optimum ${optimum} by more than rounding`;
  }
  return null;
}

function judge(module, kind, name, fields) {
  const [w, kept] = [array(fields.w), array(fields.w)];
  const parameter = fields[name];
  try {
    const found = module[kind](w, parameter);
    if (!w.data.every((x, i) => Object.is(x, kept.data[i]))) return 'wrote to its input';
    return complaint(kind, kept, parameter, found, hex.decode(fields.optimum),
      hex.decode(fields.tolerance));
  } catch (error) {
    return `threw ${error}`;
  }
}

function main(folder, file) {
  const module = require(path.resolve(file));
  let wrong = 0;
  for (const kind of Object.keys(FEASIBLE)) {
    const text = fs.readFileSync(path.join(folder, `${kind}.json`), 'utf8');
    const { format, version, parameters: [name], cases } = JSON.parse(text);
    if (format !== 'lcref-vectors' || version !== 1) throw new Error(`${kind}.json: ${format}`);
    const failures = cases.map((fields) => [fields, judge(module, kind, name, fields)])
      .filter(([, message]) => message);
    console.log(`${kind}: ${cases.length - failures.length} of ${cases.length} passed`);
    for (const [fields, message] of failures) {
      console.log(`  ${fields.id} (${fields.flags.join(', ')}): ${message}`);
    }
    wrong += failures.length;
  }
  return wrong ? 1 : 0;
}

if (require.main === module) {
  if (process.argv.length !== 4) {
    console.error('usage: node vectors.js FOLDER MODULE');
    process.exit(2);
  }
  process.exitCode = main(process.argv[2], process.argv[3]);
}
