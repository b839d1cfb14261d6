'use strict';
// C99 hex texts and exact arithmetic on doubles: every double is an integer times a power of two.

const FORM = /^(-?)0x([01])(?:\.([0-9a-f]*))?p([+-]?[0-9]+)$/i;

// The double of a hex text with at most 53 significant bits, exactly; a number stays what it is.
function decode(text) {
  if (typeof text === 'number') return text;
  const found = FORM.exec(text);
  if (!found) throw new Error(`not a C99 hex float: ${text}`);
  const [, sign, lead, digits = '', exponent] = found;
  const mantissa = parseInt(lead + digits, 16);
  if (!Number.isSafeInteger(mantissa)) throw new Error(`more digits than a double has: ${text}`);
  const shift = Number(exponent) - 4 * digits.length;
  // in two steps: 2 ** shift alone may underflow where the product does not
  const half = Math.trunc(shift / 2);
  const value = mantissa * 2 ** half * 2 ** (shift - half);
  return sign ? -value : value;
}

// The canonical hex text of a double, as Python's float.hex writes it.
function encode(x) {
  const [mantissa, exponent, negative] = split(x);
  const sign = negative ? '-' : '';
  if (mantissa === 0n) return `${sign}0x0.0p+0`;
  const normal = mantissa >> 52n;
  const digits = (mantissa & ((1n << 52n) - 1n)).toString(16).padStart(13, '0');
  const power = exponent + 52;
  return `${sign}0x${normal}.${digits}p${power < 0 ? '-' : '+'}${Math.abs(power)}`;
}

// |x| = mantissa · 2^exponent with an integer (BigInt) mantissa, and whether x is negative.
function split(x) {
  if (!Number.isFinite(x)) throw new Error(`not finite: ${x}`);
  const view = new DataView(new ArrayBuffer(8));
  view.setFloat64(0, x);
  const bits = view.getBigUint64(0);
  const field = Number((bits >> 52n) & 0x7ffn);
  const fraction = bits & ((1n << 52n) - 1n);
  return [field ? fraction | (1n << 52n) : fraction, Math.max(field, 1) - 1075, bits >> 63n === 1n];
}

// x as an integer in units of 2^-1074, of which every double is a multiple.
const UNIT = 1074;
function exact(x) {
  const [mantissa, exponent, negative] = split(x);
  const integer = mantissa << BigInt(exponent + UNIT);
  return negative ? -integer : integer;
}

// ‖w − θ‖² in units of 2^-2148.
function distance(w, theta) {
  return w.reduce((sum, x, i) => sum + (exact(x) - exact(theta[i])) ** 2n, 0n);
}

// optimum + tolerance in units of 2^-2148.
function limit(optimum, tolerance) {
  return (exact(optimum) + exact(tolerance)) << BigInt(UNIT);
}

module.exports = { decode, encode, exact, distance, limit };
