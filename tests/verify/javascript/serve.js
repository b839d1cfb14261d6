'use strict';
// Answer requests on standard input, one JSON object a line: node serve.js MODULE
//
// Request: {"id": 7, "kind": "l0_ball", "w": {shape, dtype, data}, "kappa": 2}, floats as C99 hex;
// answer: {"id": 7, "theta": {shape, dtype, data}}, or {"id": 7, "error": "what is wrong"}.

const path = require('path');
const readline = require('readline');
const hex = require('./hex.js');

const PARAMETER = { l0_ball: 'kappa', binary: 'scale', kmeans: 'k' };

function answer(module, request) {
  const { id, kind, w } = request;
  try {
    if (!PARAMETER[kind]) throw new Error(`kind ${kind} is not served here`);
    const given = { shape: w.shape, dtype: w.dtype, data: w.data.map(hex.decode) };
    const theta = module[kind](given, request[PARAMETER[kind]]);
    return { id, theta: { ...theta, data: theta.data.map(hex.encode) } };
  } catch (error) {
    return { id, error: String(error.message ?? error) };
  }
}

function serve(module) {
  readline.createInterface({ input: process.stdin }).on('line', (line) => {
    if (line.trim() === '') return;
    let reply;
    try {
      reply = answer(module, JSON.parse(line));
    } catch (error) {
      reply = { id: null, error: `not a JSON object: ${error.message}` };
    }
    process.stdout.write(`${JSON.stringify(reply)}\n`);
  });
}

if (process.argv.length !== 3) {
  console.error('usage: node serve.js MODULE');
  process.exit(2);
}
serve(require(path.resolve(process.argv[2])));
